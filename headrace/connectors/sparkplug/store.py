"""Edge nodes in a compacted topic: each entry is changed in the same step as the records that it led to."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import blake2b

import orjson

from headrace.connectors.sparkplug.catalogue import Catalogue
from headrace.connectors.sparkplug.edge import Edge
from headrace.connectors.sparkplug.payload import read_payload
from headrace.connectors.sparkplug.session import EdgeCounts, Held, Message, Session
from headrace.connectors.sparkplug.topic import EdgeTopic, read_topic

#: The topic; of one partition, since one process writes it.
TOPIC = "headrace.sparkplug"
#: What a key begins with, and what stands between its parts; a topic of MQTT has no such character.
SESSION, CATALOGUE, HELD, RECENT = b"S", b"C", b"H", b"R"
_SEP = b"\0"
DIGEST_BYTES = 8
#: Messages that a repeat is recognised of: more than a broker or client has without acknowledgement.
MOST_RECENT = 65_536


def digest(topic: bytes, payload: bytes) -> bytes:
    """Stands for a message in `Recent`."""
    return blake2b(topic + _SEP + payload, digest_size=DIGEST_BYTES).digest()


class Recent:
    """The messages that came last, of all edge nodes, by digest; about 100 bytes each."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, bytes]] = deque()
        self._known: dict[bytes, int] = {}
        self._count = 0
        self._next = 0

    def __contains__(self, item: bytes) -> bool:
        return item in self._known

    def add(self, digests: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Remember a batch, and forget the oldest that need not be known any more; what that changes in the topic."""
        changes: dict[bytes, bytes | None] = {}
        joined = b"".join(digests)
        changes[self._key(self._next)] = joined
        self._remember(self._next, joined)
        while self._count - len(self._batches[0][1]) // DIGEST_BYTES >= MOST_RECENT:
            number, oldest = self._batches.popleft()
            changes[self._key(number)] = None
            for each in _split(oldest):
                self._count -= 1
                self._known[each] -= 1
                if not self._known[each]:
                    del self._known[each]
        return changes

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember what is stored."""
        for key, joined in sorted(entries):
            self._remember(int(key[2:], 16), joined)

    def _remember(self, number: int, joined: bytes) -> None:
        self._batches.append((number, joined))
        self._next = number + 1
        for each in _split(joined):
            self._count += 1
            self._known[each] = self._known.get(each, 0) + 1

    @staticmethod
    def _key(number: int) -> bytes:
        return RECENT + _SEP + b"%016x" % number


def _split(joined: bytes) -> Iterator[bytes]:
    return (joined[place : place + DIGEST_BYTES] for place in range(0, len(joined), DIGEST_BYTES))


def changes_of(edge: Edge) -> dict[bytes, bytes | None]:
    """What must be stored of an edge node; it counts as stored from now on."""
    name = edge.name.encode()
    found: dict[bytes, bytes | None] = {SESSION + _SEP + name: orjson.dumps(asdict(edge.session))}
    for device in edge.changed_catalogues:
        catalogue = edge.catalogues.get(device)
        key = _SEP.join((CATALOGUE, name, device.encode()))
        found[key] = None if catalogue is None else catalogue.dump()
    for number in edge.changed_held:
        held = edge.held.get(number)
        found[_SEP.join((HELD, name, b"%d" % number))] = None if held is None else _dump_held(held)
    edge.changed_catalogues.clear()
    edge.changed_held.clear()
    return found


def load_edges(entries: Iterable[tuple[bytes, bytes]], make: Callable[[str], Edge]) -> tuple[dict[str, Edge], Recent]:
    """The edge nodes, and the messages that came last, as they were stored."""
    edges: dict[str, Edge] = {}
    recent: list[tuple[bytes, bytes]] = []
    waiting: list[tuple[str, int, Held]] = []
    for key, value in entries:
        kind, name, *rest = key.split(_SEP)
        if kind == RECENT:
            recent.append((key, value))
            continue
        edge = edges.get(name.decode())
        if edge is None:
            edge = edges[name.decode()] = make(name.decode())
        if kind == SESSION:
            stored = orjson.loads(value)
            edge.session = Session(**{**stored, "counts": EdgeCounts(**stored["counts"])})
        elif kind == CATALOGUE:
            edge.catalogues[rest[0].decode()] = Catalogue.load(value)
        elif kind == HELD:
            waiting.append((edge.name, int(rest[0]), _load_held(value)))
    for name_, number, held in sorted(waiting, key=lambda each: each[1]):
        edges[name_].keep(number, held)
    known = Recent()
    known.load(recent)
    return edges, known


def _dump_held(held: Held) -> bytes:
    message = held.message
    head = orjson.dumps([held.for_order, held.after, message.came_ms, message.topic.decode()])
    return head + b"\n" + message.raw


def _load_held(stored: bytes) -> Held:
    head, _, raw = stored.partition(b"\n")
    for_order, after, came_ms, topic = orjson.loads(head)
    about = read_topic(topic.encode())
    assert isinstance(about, EdgeTopic)
    return Held(Message(about, topic.encode(), raw, read_payload(raw), came_ms), for_order, after)
