"""What a sequence of messages of one edge node comes to."""

from collections.abc import Iterable
from typing import Any

import orjson

from headrace.connectors.sparkplug.edge import Edge
from headrace.connectors.sparkplug.payload import read_payload
from headrace.connectors.sparkplug.session import Message, Outcome
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.sparkplug.topic import EdgeTopic, read_topic
from tests.connectors.sparkplug.edge_node import EdgeNode, metric, payload

NOW = 1_750_000_000_000
METRICS = {"": {"volts": (1, "Float")}, "motor": {"rpm": (2, "Int32"), "on": (3, "Boolean")}}
VALUES = {("", "volts"): 12.1, ("motor", "rpm"): -3, ("motor", "on"): True}
Sent = tuple[str, bytes]


class Host:
    """An edge as its intake sees it, with a clock by hand."""

    def __init__(self, **settings: Any) -> None:
        self.settings = SparkplugSettings.model_validate(settings)
        self.edge = Edge("plant/press", self.settings)
        self.out = Outcome()
        self.now = NOW
        self._seen: set[Sent] = set()

    def take(self, *sent: Sent) -> "Host":
        """Take these messages."""
        for topic, raw in sent:
            about = read_topic(topic.encode())
            assert isinstance(about, EdgeTopic)
            message = Message(about, topic.encode(), raw, read_payload(raw), self.now)
            self.edge.take(message, (topic, raw) in self._seen, self.out)
            self._seen.add((topic, raw))
        return self

    def wait(self, seconds: float) -> "Host":
        """Let time pass."""
        self.now += int(1000 * seconds)
        self.edge.pass_time(self.now, self.out)
        return self

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """Device id and document of what was read since the last time."""
        found = [(each.message.about.device_id, orjson.loads(each.document)) for each in self.out.readings]
        self.out.readings.clear()
        return found

    def reasons(self) -> list[str]:
        """Why messages were refused."""
        return [reason for _, reason in self.out.refusals]

    def lives(self) -> list[tuple[str, str]]:
        """Device ids and what began or ended."""
        return [(life.device_id, life.state) for life in self.out.lives]


def born() -> tuple[EdgeNode, Host]:
    """An edge node that has connected, and a host that knows it."""
    node, host = EdgeNode(metrics=METRICS), Host()
    node.connect()
    host.take(*node.births(NOW, VALUES))
    return node, host


def rpm(values: Iterable[int], node: EdgeNode) -> list[Sent]:
    """DDATA with these values, a second apart."""
    return [node.data("motor", NOW + 1000 * (place + 1), {"rpm": each}) for place, each in enumerate(values)]


def test_births_and_data_are_read() -> None:
    """A birth's values are a reading, and data are read by the aliases that it declared."""
    node, host = born()
    host.take(node.data("motor", NOW + 5, {"rpm": 1500}), node.data("", NOW + 6, {"volts": 12.3}))

    assert host.read() == [
        ("plant/press", {"timestamp": NOW, "volts": 12.1}),
        ("plant/press/motor", {"timestamp": NOW, "rpm": -3, "on": True}),
        ("plant/press/motor", {"timestamp": NOW + 5, "rpm": 1500}),
        ("plant/press", {"timestamp": NOW + 6, "volts": 12.3}),
    ]
    assert host.lives() == [("plant/press", "connected"), ("plant/press/motor", "connected")]
    assert not host.edge.session.wants_rebirth


def test_overtaken_messages_are_put_in_order() -> None:
    """What comes ahead of its turn waits for what is before it; that is no gap."""
    node, host = born()
    host.read()
    one, two, three = rpm([1, 2, 3], node)
    host.take(three, two)
    assert host.read() == []

    host.take(one).wait(10)
    assert [document["rpm"] for _, document in host.read()] == [1, 2, 3]
    assert host.edge.session.counts.gaps == 0
    assert not host.edge.session.wants_rebirth


def test_a_gap_that_persists() -> None:
    """After the reorder timeout the messages are missing: what waited is read, and births are wanted."""
    node, host = born()
    host.read()
    one, _, _, four = rpm([1, 2, 3, 4], node)
    host.take(one, four).wait(1.9)
    assert len(host.read()) == 1

    host.wait(0.1)
    assert [document["rpm"] for _, document in host.read()] == [4]
    assert (host.edge.session.counts.gaps, host.edge.session.counts.missing) == (1, 2)
    assert host.edge.session.wants_rebirth


def test_later_than_the_timeout() -> None:
    """A message that comes after it was counted as missing is read all the same, and leaves the order as it is."""
    node, host = born()
    host.read()
    one, two, three, four = rpm([1, 2, 3, 4], node)
    host.take(one, three).wait(3).take(two, four).wait(3)

    assert [document["rpm"] for _, document in host.read()] == [1, 3, 2, 4]
    counts = host.edge.session.counts
    assert (counts.gaps, counts.missing, counts.late) == (1, 1, 1)


def test_numbers_come_round() -> None:
    """Behind 255 comes 0."""
    node, host = born()
    host.read()
    host.take(*rpm(range(600), node))

    assert [document["rpm"] for _, document in host.read()] == list(range(600))
    assert host.edge.session.counts.gaps == 0


def test_data_before_any_birth() -> None:
    """They wait for the births that are asked for, and are read with these."""
    node, host = EdgeNode(metrics=METRICS), Host()
    node.births(NOW, VALUES)
    host.take(*rpm([1, 2], node))
    assert host.read() == []
    assert host.edge.is_rebirth_due(host.now)

    host.take(*node.births(NOW + 9000, VALUES))
    assert [document.get("rpm") for device, document in host.read() if "motor" in device] == [-3, 1, 2]
    assert host.edge.held == {}
    assert not host.edge.is_rebirth_due(host.now + 60_000)


def test_no_birth_comes() -> None:
    """Data that nothing explains are refused in the end, with a reason."""
    node, host = EdgeNode(metrics=METRICS), Host(hold=30)
    node.births(NOW, VALUES)
    host.take(*rpm([1, 2], node)).wait(29)
    assert host.reasons() == []

    host.wait(1)
    assert host.reasons() == ["no birth certificate explained it in 30 s"] * 2
    assert host.edge.held == {}


def test_an_unknown_alias() -> None:
    """A metric that was not declared waits for the birth that declares it; what is after it goes on."""
    node, host = born()
    host.read()
    node.metrics = {**METRICS, "motor": {**METRICS["motor"], "torque": (9, "Double")}}
    host.take(node.data("motor", NOW + 1, {"torque": 4.5}), node.data("motor", NOW + 2, {"rpm": 7}))
    assert [document for _, document in host.read()] == [{"timestamp": NOW + 2, "rpm": 7}]
    assert host.edge.session.wants_rebirth

    host.take(*node.births(NOW + 3, {**VALUES, ("motor", "torque"): 5.5}))
    assert {"timestamp": NOW + 1, "torque": 4.5} in [document for _, document in host.read()]
    assert host.edge.session.counts.gaps == 0


def test_too_much_waits() -> None:
    """Beyond the bounds the oldest is refused."""
    node, host = EdgeNode(metrics=METRICS), Host(max_held=3)
    node.births(NOW, VALUES)
    host.take(*rpm(range(5), node))

    assert len(host.edge.held) == 3
    assert host.reasons() == ["too much of its edge node waits for a birth certificate"] * 2


def test_what_comes_again() -> None:
    """Births and data that were taken already are repeats; nothing is read, and no gap is counted."""
    node, host = EdgeNode(metrics=METRICS), Host()
    node.connect()
    sent = [*node.births(NOW, VALUES), *rpm([1, 2, 3], node)]
    host.take(*sent)
    host.read()
    host.take(*sent).wait(60).take(*rpm([4], node))

    assert [document["rpm"] for _, document in host.read()] == [4]
    counts = host.edge.session.counts
    assert (counts.repeats, counts.gaps, counts.births) == (5, 0, 1)


def test_a_death_ends_all_lives() -> None:
    """The death of the node's session is that of its devices; one of another session is nothing."""
    node, host = born()
    old = EdgeNode(metrics=METRICS).death()
    host.take(old)
    assert host.edge.session.counts.stale_deaths == 1
    assert len(host.lives()) == 2

    host.take(node.death(), node.death())
    assert host.lives()[2:] == [("plant/press/motor", "disconnected"), ("plant/press", "disconnected")]
    assert host.edge.session.counts.deaths == 1


def test_a_device_dies_and_comes_back() -> None:
    """DDEATH and DBIRTH are in the node's sequence, and are the device's connection."""
    node, host = born()
    host.take(node.device_death("motor", NOW + 1), node.device_birth("motor", NOW + 2, VALUES))

    assert host.lives()[2:] == [("plant/press/motor", "disconnected"), ("plant/press/motor", "connected")]
    assert host.edge.session.counts.gaps == 0
    connections = [life.connection for life in host.out.lives if life.device_id.endswith("motor")]
    assert connections[0] == connections[1] != connections[2]


def test_a_rebirth_is_the_same_life() -> None:
    """Births of the same session change what is known and nobody's presence; another session's end the one before."""
    node, host = born()
    host.take(*node.births(NOW + 1, VALUES))
    assert len(host.lives()) == 2

    node.connect()
    host.take(*node.births(NOW + 2, VALUES))
    assert [state for _, state in host.lives()[2:]] == ["disconnected", "disconnected", "connected", "connected"]


def test_data_that_a_rebirth_overtook() -> None:
    """Data sent before a birth and delivered after it are read, and the birth's own sequence stays whole."""
    node, host = born()
    late = node.data("", NOW + 1, {"volts": 11.5})
    births = node.births(NOW + 2, VALUES)
    host.take(births[0], late, births[1]).wait(10)

    assert {"timestamp": NOW + 1, "volts": 11.5} in [document for _, document in host.read()]
    counts = host.edge.session.counts
    assert (counts.gaps, counts.late, counts.births) == (0, 1, 2)


def test_a_birth_that_was_overtaken() -> None:
    """Messages of a new session that come before its birth are lined up behind it."""
    node, host = EdgeNode(metrics=METRICS), Host()
    births = node.births(NOW, VALUES)
    data = rpm([1], node)
    host.take(*data, births[1], births[0]).wait(10)

    assert [document.get("rpm") for _, document in host.read()] == [None, -3, 1]
    assert host.edge.session.counts.gaps == 0
    assert host.edge.held == {}


def test_a_sequence_that_begins_anew() -> None:
    """A node whose numbers start over without a birth is another session: its data wait for the births."""
    node, host = born()
    host.take(*rpm(range(100), node))
    host.read()
    node.seq = 4
    host.take(node.data("motor", NOW + 200_000, {"rpm": 8})).wait(3)
    counts = host.edge.session.counts
    assert (counts.resets, counts.gaps, host.read()) == (1, 0, [])

    host.take(*node.births(NOW + 300_000, VALUES))
    assert {"timestamp": NOW + 200_000, "rpm": 8} in [document for _, document in host.read()]


def test_a_value_of_another_type() -> None:
    """It is refused, and keeps its place in the sequence."""
    node, host = born()
    host.read()
    node.metrics = {**METRICS, "motor": {"rpm": (2, "String")}}
    host.take(node.data("motor", NOW + 1, {"rpm": "fast"}))
    node.metrics = METRICS
    host.take(*rpm([2], node))

    assert host.reasons() == ["a value of datatype 3 stands in field 15"]
    assert [document["rpm"] for _, document in host.read()] == [2]
    assert host.edge.session.counts.gaps == 0


def test_requests_are_rare() -> None:
    """A node is asked again after the interval, and only if it has spoken since."""
    node, host = EdgeNode(metrics=METRICS), Host(rebirth_interval=10, max_held=100)
    node.births(NOW, VALUES)
    host.take(*rpm([1], node))
    assert host.edge.is_rebirth_due(NOW)
    host.edge.note_asked(NOW)
    host.take(*rpm([2], node))

    assert not host.edge.is_rebirth_due(NOW + 9_999)
    assert host.edge.is_rebirth_due(NOW + 10_000)
    host.edge.note_asked(NOW + 10_000)
    assert not host.edge.is_rebirth_due(NOW + 60_000)


def test_births_that_explain_nothing() -> None:
    """A node whose births leave out what its data have is not asked for them without end."""
    node, host = born()
    node.metrics = {**METRICS, "motor": {**METRICS["motor"], "torque": (9, "Double")}}
    asked = 0
    for second in range(30):
        node.metrics, births = METRICS, node.metrics
        if host.edge.is_rebirth_due(host.now):
            host.edge.note_asked(host.now)
            asked += 1
            host.take(*node.births(host.now + 1, VALUES))
        node.metrics = births
        host.take(node.data("motor", host.now + 2, {"torque": float(second)})).wait(1)

    assert asked == 3


def test_the_same_number_lost_in_every_round() -> None:
    """It is a gap each time, and remembered once."""
    node, host = born()
    sent = rpm(range(1_000), node)
    host.take(*(message for message, place in zip(sent, range(2, 1_002), strict=True) if place % 256 != 7)).wait(3)
    for _ in range(3):
        host.wait(3)

    assert (host.edge.session.counts.gaps, host.edge.session.missing) == (4, [7])


def test_times_within_a_message() -> None:
    """One document per timestamp; the same metric twice at one time makes two, so that no value is lost."""
    node, host = born()
    host.read()
    metrics = [
        metric(None, "Int32", 1, alias=2, timestamp=NOW + 1),
        metric(None, "Boolean", False, alias=3, timestamp=NOW + 2),
        metric(None, "Int32", 2, alias=2, timestamp=NOW + 1),
        metric(None, "Boolean", True, alias=3, timestamp=NOW + 1),
    ]
    host.take((node.topic("DDATA", "motor"), payload(metrics, node.seq + 1, NOW + 9)))

    assert [document for _, document in host.read()] == [
        {"timestamp": NOW + 1, "rpm": 1, "on": True},
        {"timestamp": NOW + 2, "on": False},
        {"timestamp": NOW + 1, "rpm": 2},
    ]
