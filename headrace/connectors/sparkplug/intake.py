"""The way of Sparkplug messages into the log: read with the state of their edge nodes, which is kept beside them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from headrace.connectors.sparkplug.edge import Edge
from headrace.connectors.sparkplug.payload import read_payload, rebirth_request
from headrace.connectors.sparkplug.presence import presence_appends
from headrace.connectors.sparkplug.session import Message, Outcome
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.sparkplug.store import TOPIC, Recent, changes_of, digest, load_edges
from headrace.connectors.sparkplug.topic import command_topic, read_topic
from headrace.connectors.sparkplug.wire import BadPayload
from headrace.connectors.topic_profile import TopicProfile
from headrace.connectors.topic_routes import MAX_TOPIC_BYTES
from headrace.connectors.unpacking import MAX_REASON
from headrace.engine.clock import Clock
from headrace.engine.health import Progress
from headrace.engine.intake import Intake
from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec
from headrace.engine.metrics import Metrics
from headrace.engine.partitioner import Partitioner
from headrace.schemas import topics as names

log = structlog.get_logger(__name__)

#: Larger payloads are not looked into; where the log takes only twice less than that, the half of what it takes.
MAX_PAYLOAD_BYTES = 1 << 20
#: Bytes of readings after which an append is divided: names that aliases stand for take more than what came.
LARGEST_COMMIT = 8 << 20
#: Seconds between looks at what waits.
TICK = 0.25
_STATE = TopicPartition(TOPIC, 0)
#: Publishes at QoS 0 to whoever listens; takes topic and payload.
Publish = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class SparkplugStatistics:
    """What was done so far, counts; those of edge nodes since they were first heard of.

    Args:
        messages: that came.
        appended: records that they made.
        refused: messages appended as they came, for the dead letters.
        ignored: commands and states, which are not for us.
        edges, online: edge nodes that are known, and of these with a birth and no death.
        waiting: messages that wait for others.
        gaps, missing, late, repeats, resets, stale_deaths: sums of `EdgeCounts`.
        rebirths_asked: requests to edge nodes.
    """

    messages: int
    appended: int
    refused: int
    ignored: int
    edges: int
    online: int
    waiting: int
    gaps: int
    missing: int
    late: int
    repeats: int
    resets: int
    stale_deaths: int
    rebirths_asked: int


class _Refused(NamedTuple):
    """A message that cannot be read."""

    device_id: str
    topic: bytes
    raw: bytes
    reason: str


@dataclass(slots=True)
class _Work:
    """What is to be committed: what messages came to, those that cannot be read, who changed, and digests, in order."""

    out: Outcome = field(default_factory=Outcome)
    unread: list[_Refused] = field(default_factory=list)
    touched: dict[str, Edge] = field(default_factory=dict)
    digests: dict[bytes, None] = field(default_factory=dict)
    _counted: int = 0
    _bytes: int = 0

    def size(self) -> int:
        """Bytes of the readings; each is looked at once."""
        self._bytes += sum(len(each.document) for each in self.out.readings[self._counted :])
        self._counted = len(self.out.readings)
        return self._bytes


class SparkplugIntake:
    """Appends what Sparkplug messages say, a record per device and timestamp, in one step with all state it led to.

    So a crash at any place loses nothing, and counts nothing twice: what comes again is recognised. Messages that wait
    for others are in that state, and may be acknowledged. One process only: it claims all this for its intake, see
    `Log.claim`. Once another process has done that, an append of this one is refused.

    Args:
        settings: times and bounds.
        profile: the topic profile of Sparkplug messages.
        intake: appends the records; nobody else's.
        log: where intake and state are.
        clock: times.
        metrics: told how it goes; ones of its own if left out.
    """

    name = "sparkplug"

    def __init__(
        self,
        settings: SparkplugSettings,
        profile: TopicProfile,
        intake: Intake,
        log: Log,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._intake = intake
        self._log = log
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._presence = Partitioner(log.partitions(names.PRESENCE))
        #: Requests for births go to each of these.
        self.commands: list[Publish] = []
        self._lock = asyncio.Lock()
        self._edges: dict[str, Edge] | None = None
        self._recent = Recent()
        self._messages = self._appended = self._refused = self._ignored = self._asked = 0

    @staticmethod
    def topic_specs() -> list[TopicSpec]:
        """The topic it needs beside those of the intake and `devices.presence`."""
        return [TopicSpec(TOPIC, 1, compacted=True)]

    def takes(self, topic: bytes) -> bool:
        """Whether the topic is for this intake."""
        try:
            return self._profile.find(topic.decode()) is not None
        except UnicodeDecodeError:
            return False

    async def start(self) -> None:
        """Take up what the log knows, now and not with the first message.

        Raises:
            LogError: it cannot be read.
        """
        async with self._lock:
            await self._known_edges()

    async def append(self, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Take messages in order; when this returns, what they say is in the log for good, or waits there.

        Raises:
            LogError: nothing was taken; do not acknowledge.
            LogInUse: likewise, as another process takes Sparkplug messages now.
        """
        asked = dict[str, Edge]()
        async with self._lock:
            edges, work, now_ms = await self._known_edges(), _Work(), self._clock.now_ms()
            for topic, payload in zip(topics, payloads, strict=True):
                self._take(edges, topic, payload, now_ms, work)
                if work.size() > LARGEST_COMMIT:
                    await self._commit(work)
                    asked, work = asked | work.touched, _Work()
            await self._commit(work)
        self._ask((asked | work.touched).values())

    async def run(self, stop: asyncio.Event) -> None:
        """Let time pass for what waits, until `stop` is set.

        Raises:
            LogError: the log takes nothing more.
        """
        while not stop.is_set():
            await self._clock.sleep(TICK)
            await self.pass_time()

    async def pass_time(self) -> None:
        """Look at what waits, and at who is to be asked for a birth."""
        async with self._lock:
            edges, work, now_ms = await self._known_edges(), _Work(), self._clock.now_ms()
            for edge in edges.values():
                if edge.held:
                    edge.pass_time(now_ms, work.out)
                    if edge.changed_held:
                        work.touched[edge.name] = edge
            await self._commit(work)
            everybody = list(edges.values())
        self._ask(everybody)
        self._metrics.set("headrace_sparkplug_waiting", sum(len(edge.held) for edge in everybody))

    def statistics(self) -> SparkplugStatistics:
        """A snapshot of the counters."""
        edges = list((self._edges or {}).values())
        counts = [edge.session.counts for edge in edges]
        return SparkplugStatistics(
            self._messages,
            self._appended,
            self._refused,
            self._ignored,
            len(edges),
            sum(edge.session.online for edge in edges),
            sum(len(edge.held) for edge in edges),
            sum(each.gaps for each in counts),
            sum(each.missing for each in counts),
            sum(each.late for each in counts),
            sum(each.repeats for each in counts),
            sum(each.resets for each in counts),
            sum(each.stale_deaths for each in counts),
            self._asked,
        )

    def progress(self) -> Progress:
        """How far it has come, for health; what waits for an edge node is not for us to do."""
        return Progress(self._messages, 0)

    def edges(self) -> dict[str, Edge]:
        """The edge nodes that are known, by descriptor."""
        return dict(self._edges or {})

    # --- messages ---

    def _read(self, topic: bytes, payload: bytes, now_ms: int) -> Message | _Refused | None:
        about = read_topic(topic)
        if about is None:
            return None
        if isinstance(about, str):
            return _Refused(names.NO_DEVICE, topic, payload, about)
        most = min(MAX_PAYLOAD_BYTES, self._log.largest_value // 2)  # it may have to wait, with some words about it
        if len(payload) > most:
            return _Refused(about.device_id, topic, payload, f"a Sparkplug payload of more than {most:,} bytes")
        try:
            read = read_payload(payload)
        except BadPayload as error:
            return _Refused(about.device_id, topic, payload, f"no Sparkplug B payload: {error}")
        if read.seq is not None and read.seq > 255:
            return _Refused(about.device_id, topic, payload, f"sequence number {read.seq} is above 255")
        return Message(about, topic, payload, read, now_ms)

    def _take(self, edges: dict[str, Edge], topic: bytes, payload: bytes, now_ms: int, work: "_Work") -> None:
        self._messages += 1
        message = self._read(topic, payload, now_ms)
        if message is None:
            self._ignored += 1
            return
        if isinstance(message, _Refused):
            work.unread.append(message)
            return
        edge = self._edge(edges, message.about.edge)
        if edge is None:
            full = f"there are {self._settings.max_edges:,} edge nodes already ([sparkplug] max_edges)"
            work.unread.append(_refused(message, full))
            return
        mark = digest(topic, payload)
        try:
            edge.take(message, mark in self._recent or mark in work.digests, work.out)
        except Exception as error:
            # A mistake of ours: it must not keep what is behind this message from the log, again and again.
            log.exception("sparkplug_failed", edge=edge.name)
            work.unread.append(_refused(message, f"it could not be read, which is a fault of headrace: {error!r}"))
        work.touched[edge.name] = edge
        work.digests[mark] = None

    def _edge(self, edges: dict[str, Edge], name: str) -> Edge | None:
        edge = edges.get(name)
        if edge is None and len(edges) < self._settings.max_edges:
            edge = edges[name] = self._new_edge(name)
        return edge

    def _new_edge(self, name: str) -> Edge:
        return Edge(name, self._settings, self._profile.time_field)

    # --- the log ---

    async def _known_edges(self) -> dict[str, Edge]:
        if self._edges is None:
            await self._intake.claim(self.name)
            entries = [entry async for chunk in self._log.restore(_STATE) for entry in chunk]
            self._edges, self._recent = load_edges(entries, self._new_edge)
        return self._edges

    async def _commit(self, work: "_Work") -> None:
        """Append what messages came to, and what is known of their edge nodes, in one step."""
        try:
            await self._append_work(work)
        except BaseException:
            self._edges = None  # what is known is ahead of the log: read it there again
            raise
        for gap in work.out.gaps:
            self._metrics.count("headrace_sparkplug_gaps_total")
            self._metrics.count("headrace_sparkplug_missing_total", gap.missing)
            log.debug("sparkplug_gap", edge=gap.edge, missing=gap.missing)

    async def _append_work(self, work: "_Work") -> None:
        entries = self._recent.add(list(work.digests)) if work.digests else {}
        for edge in work.touched.values():
            entries |= changes_of(edge)
        refused = [*work.unread, *(_refused(message, reason) for message, reason in work.out.refusals)]
        readings = [(each.message.about.device_id, each.document, each.message.topic) for each in work.out.readings]
        rows = [*readings, *((each.device_id, each.raw, each.topic) for each in refused)]
        if not (rows or entries):
            return
        reasons = [*[None] * len(readings), *map(_reason, refused)]
        await self._intake.append(
            [device_id.encode() for device_id, _, _ in rows],
            [value for _, value, _ in rows],
            device_type=self._profile.device_type,
            profile=self._profile.name,
            sources=[topic[:MAX_TOPIC_BYTES] for _, _, topic in rows],
            headers={names.REFUSED: reasons} if refused else None,
            beside=presence_appends(self._presence, work.out.lives),
            changes=[Changes(_STATE, entries)] if entries else [],
        )
        self._appended += len(readings)
        self._refused += len(refused)

    # --- requests ---

    def _ask(self, edges: Iterable[Edge]) -> None:
        """Ask edge nodes for their births where these are wanted."""
        if not (self._settings.rebirth and self.commands):
            return
        now_ms = self._clock.now_ms()
        for edge in edges:
            if not edge.is_rebirth_due(now_ms):
                continue
            edge.note_asked(now_ms)
            self._asked += 1
            self._metrics.count("headrace_sparkplug_rebirths_total")
            log.debug("sparkplug_rebirth_asked", edge=edge.name)
            for publish in self.commands:
                publish(command_topic(edge.name), rebirth_request(now_ms))


def _refused(message: Message, reason: str) -> _Refused:
    return _Refused(message.about.device_id, message.topic, message.raw, reason)


def _reason(refused: _Refused) -> bytes:
    return refused.reason[:MAX_REASON].encode(errors="replace")
