"""Sparkplug messages into a real log: each value once, whatever is lost, overtaken, repeated or killed on the way."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import LogError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition, TopicSpec, Transaction
from headrace.schemas import topics
from tests.connectors.sparkplug.edge_node import EdgeNode, metric, payload
from tests.connectors.sparkplug.sessions import METRICS, START_MS, History, Sent, gaps, histories

PROFILE = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")
VALUES = {("", "volts"): 1, ("motor", "rpm"): 2, ("fan", "rpm"): 3}
Value = tuple[str, str, int]


class World:
    """A log, and one intake after the other on it."""

    def __init__(self, log: EmbeddedLog, **changed: Any) -> None:
        self.log = log
        self.clock = ManualClock(START_MS)
        self.asked: list[tuple[str, bytes]] = []
        self._settings = SparkplugSettings.model_validate(changed)
        self.start()

    def start(self) -> None:
        """A new process: what the one before had in memory is gone."""
        self.intake = SparkplugIntake(self._settings, PROFILE, Intake(self.log, self.clock), self.log, self.clock)
        self.intake.commands.append(lambda topic, sent: self.asked.append((topic, sent)))

    async def take(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Append these at once."""
        pairs = [(topic.encode(), raw) for topic, raw in messages]
        await self.intake.append([topic for topic, _ in pairs], [raw for _, raw in pairs])

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(int(1000 * seconds))
        await self.intake.pass_time()

    async def records(self, topic: str = topics.RAW) -> list[tuple[str, bytes, str | None]]:
        """Key, value and reason of a refusal of all records."""
        found: list[tuple[str, bytes, str | None]] = []
        for target, end in (await self.log.end_offsets(topic)).items():
            offset = 0
            while offset < end:
                fetched = await self.log.read(TopicPartition(*target), offset, 1_000)
                assert fetched is not None
                reasons = fetched.records.header(topics.REFUSED)
                for key, value, reason in zip(fetched.records.keys, fetched.records.values, reasons, strict=True):
                    assert key is not None
                    found.append((key.decode(), value or b"", reason.decode() if reason else None))
                offset = fetched.next_offset
        return found

    async def values(self) -> tuple[list[Value], list[bytes]]:
        """What was read, and the messages that were refused."""
        read, refused = [], []
        for device, value, reason in await self.records():
            if reason is not None:
                refused.append(value)
                continue
            document = orjson.loads(value)
            read += [(device, name, each) for name, each in document.items() if name != "timestamp"]
        return read, refused


async def opened() -> EmbeddedLog:
    """An empty log."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([*Intake.topic_specs(2), *SparkplugIntake.topic_specs(), TopicSpec(topics.PRESENCE, 2)])
    return log


def in_world(work: Callable[[World], Awaitable[None]], **changed: Any) -> None:
    """Do something in a world of its own."""

    async def run() -> None:
        log = await opened()
        try:
            await work(World(log, **changed))
        finally:
            await log.close()

    asyncio.run(run())


@pytest.fixture
async def world() -> Any:
    """A world."""
    log = await opened()
    yield World(log)
    await log.close()


def as_read(messages: Iterable[Sent]) -> list[Value]:
    """What these messages say, as it should be read."""
    return [
        ("/".join(part for place, part in enumerate(topic.split("/")[1:]) if place != 1), name, value)
        for message in messages
        for topic, name, value in message.values
    ]


Check = Callable[[History, st.DataObject], None]


def check_gaps(sent: History, data: st.DataObject) -> None:
    """Of what is lost, each stretch is a gap, counted once; all else is read once, in whatever order it comes."""
    losable = [place for place, each in enumerate(sent.sent) if each.kind in ("NDATA", "DDATA")]
    lost = data.draw(st.sets(st.sampled_from(losable), max_size=8) if losable else st.just(set()))
    batches = _batches(sent, lost, data)

    async def work(world: World) -> None:
        for batch in batches:
            await world.take((each.topic, each.payload) for each in batch)
            if data.draw(st.booleans()):
                world.start()
            await world.wait(3)

        read, refused = await world.values()
        arrived = [each for place, each in enumerate(sent.sent) if place not in lost]
        assert Counter(read) == Counter(as_read(arrived))
        assert refused == []
        counts = world.intake.edges()["plant/press"].session.counts
        assert (counts.gaps, counts.missing) == gaps(sent.sent, lost)
        assert (counts.repeats, counts.late, counts.resets) == (0, 0, 0)

    in_world(work)


def _batches(sent: History, lost: set[int], data: st.DataObject) -> list[list[Sent]]:
    """What comes at a time: some messages of a session in any order, and births of the node before all others of it.

    Overtaken by one that has just the number that the session before would go on with, such a birth hides a gap, or
    makes one up: the numbers do not tell.
    """
    found: list[list[Sent]] = []
    room = 0
    for place, message in enumerate(sent.sent):
        if message.kind in ("NBIRTH", "NDEATH") or room == 0:
            found.append([])
            room = data.draw(st.integers(1, 6))
        room = 0 if message.kind in ("NBIRTH", "NDEATH") else room - 1
        if place not in lost:
            found[-1].append(message)
    return [data.draw(st.permutations(batch)) for batch in found if batch]


def check_values(sent: History, data: st.DataObject) -> None:
    """Births lost and overtaken, batches redelivered after a kill, before or after the append: all that came is there.

    Each value is read once, or its message is a dead letter once.
    """
    lost = data.draw(st.sets(st.sampled_from(range(len(sent.sent))), max_size=6))
    arriving = [each for place, each in enumerate(sent.sent) if place not in lost]
    # Overtaken by a few others.
    keys = [place + data.draw(st.integers(0, 4)) for place in range(len(arriving))]
    arriving = [arriving[place] for place in sorted(range(len(arriving)), key=lambda place: keys[place])]

    async def work(world: World) -> None:
        left = list(arriving)
        while left:
            size = data.draw(st.integers(1, 8))
            batch, left = left[:size], left[size:]
            pairs = [(each.topic, each.payload) for each in batch]
            await world.take(pairs)
            if data.draw(st.booleans()):  # killed before the acknowledgement
                world.start()
                await world.take(pairs)
            await world.wait(data.draw(st.sampled_from([0, 1, 3])))
        world.start()
        await world.wait(5)
        await world.wait(100)

        read, refused = await world.values()
        counted = Counter(read)
        dead = [each for each in arriving if each.payload in refused]
        assert Counter(refused) == Counter(each.payload for each in dead)
        assert counted == Counter(as_read(each for each in arriving if each not in dead))
        assert world.intake.statistics().waiting == 0

    in_world(work)


CHECKS = pytest.mark.parametrize("check", [check_gaps, check_values], ids=["gaps", "values"])


@CHECKS
def test_histories(check: Check) -> None:
    """Gaps are counted exactly, and every value that came is read once, whatever happens on the way."""
    _check(check, 40)


@pytest.mark.states
@CHECKS
def test_many_histories(check: Check, pytestconfig: pytest.Config) -> None:
    """The same, more often."""
    _check(check, pytestconfig.getoption("--examples"))


def _check(check: Check, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(histories, st.data())
    def run(sent: History, data: st.DataObject) -> None:
        check(sent, data)

    run()


async def test_the_state_is_committed_with_the_records(world: World) -> None:
    """An append that fails leaves everything as it was, and the same intake takes the messages when they come again."""
    node = EdgeNode(metrics=METRICS)
    node.connect()
    births = node.births(START_MS, VALUES)
    commit, failing = world.log.commit, [True]

    async def fails(transaction: Transaction) -> Any:
        if failing:
            raise LogError("the disk is full")
        return await commit(transaction)

    world.log.commit = fails  # type: ignore[method-assign]
    with pytest.raises(LogError):
        await world.take(births)
    failing.clear()
    assert await world.records() == []

    await world.take(births)
    assert len((await world.values())[0]) == 3
    assert world.intake.edges()["plant/press"].session.counts.repeats == 0


async def test_what_waits_survives_a_kill(world: World) -> None:
    """Data that no birth explains yet were acknowledged: they wait in the log, and the next process reads them."""
    node = EdgeNode(metrics=METRICS)
    node.births(START_MS, VALUES)
    await world.take([node.data("motor", START_MS + 1, {"rpm": 77})])
    assert await world.records() == []

    world.start()
    await world.take(node.births(START_MS + 2, VALUES))
    assert ("plant/press/motor", "rpm", 77) in (await world.values())[0]


async def test_a_gap_is_counted_once_over_kills(world: World) -> None:
    """Killed after the gap was counted, or while it was waited for, the next process neither counts nor asks twice."""
    node = EdgeNode(metrics=METRICS)
    node.connect()
    await world.take(node.births(START_MS, VALUES))
    node.data("motor", START_MS + 1, {"rpm": 1})
    later = node.data("motor", START_MS + 2, {"rpm": 22})
    await world.take([later])
    world.start()
    await world.take([later])
    await world.wait(3)
    world.start()
    await world.take([later])
    await world.wait(3)

    counts = world.intake.edges()["plant/press"].session.counts
    assert (counts.gaps, counts.missing, counts.repeats) == (1, 1, 2)
    assert Counter((await world.values())[0])["plant/press/motor", "rpm", 22] == 1


async def test_a_rebirth_is_asked_for(world: World) -> None:
    """By NCMD, as the specification has it; and not again while nothing comes."""
    node = EdgeNode(metrics=METRICS)
    node.births(START_MS, VALUES)
    await world.take([node.data("motor", START_MS + 1, {"rpm": 1})])
    await world.wait(60)

    wanted = payload([metric("Node Control/Rebirth", "Boolean", True, timestamp=START_MS)], None, START_MS)
    assert world.asked == [("spBv1.0/plant/NCMD/press", wanted)]


async def test_births_and_deaths_are_presence(world: World) -> None:
    """Nodes and devices are connected from birth to death, in one step with their values."""
    node = EdgeNode(metrics={"motor": METRICS["motor"]})
    node.connect()
    await world.take([*node.births(START_MS, VALUES), node.death()])

    found = [orjson.loads(value) for _, value, _ in await world.records(topics.PRESENCE)]
    of_motor = [(each["state"], each.get("reason")) for each in found if each["device_id"] == "plant/press/motor"]
    assert of_motor == [("connected", None), ("disconnected", "death certificate")]
    assert {each["client_id"] for each in found} == {"plant/press"}


@pytest.mark.parametrize(
    ("topic", "raw", "reason"),
    [
        ("spBv1.0/plant/NBIRTH/press", b"\x12\xff", "no Sparkplug B payload"),
        ("spBv1.0/plant/DDATA/press", b"", "'DDATA' is no kind of Sparkplug message of a node"),
        ("spBv1.0/plant", b"", "no topic of Sparkplug B"),
        ("spBv1.0/plant/NDATA/press", payload([], 256, START_MS), "sequence number 256 is above 255"),
        ("spBv1.0/plant/NBIRTH/press", b"\x12\x00" * 10_001, "more than 10,000 metrics"),
        ("spBv1.0/plant/NBIRTH/press", b"\0" * ((1 << 20) + 1), "more than 1,048,576 bytes"),
    ],
)
async def test_what_cannot_be_read_is_refused(world: World, topic: str, raw: bytes, reason: str) -> None:
    """It goes into the log as it came, for the dead letters, with the reason."""
    await world.take([(topic, raw)])

    [(_, value, why)] = await world.records()
    assert value == raw
    assert reason in (why or "")


async def test_commands_and_states_are_not_for_us(world: World) -> None:
    """What hosts say comes with the same subscription, and is left alone."""
    await world.take(
        [("spBv1.0/STATE/scada", b"{}"), ("spBv1.0/plant/NCMD/press", b"x"), ("spBv1.0/plant/DCMD/press/motor", b"x")]
    )

    assert await world.records() == []
    assert world.intake.statistics().ignored == 3


async def test_no_more_edge_nodes_than_there_is_room_for() -> None:
    """Messages of further ones are refused."""
    log = await opened()
    world = World(log, max_edges=1)
    for name in ("press", "saw"):
        node = EdgeNode(name=name)
        node.connect()
        await world.take(node.births(START_MS, {}))

    _, refused = await world.values()
    assert len(refused) == 1
    assert list(world.intake.edges()) == ["plant/press"]
    await log.close()


async def test_short_aliases_of_long_names(world: World) -> None:
    """A message that would be many times its size with the names that its aliases stand for is refused."""
    names = {"x" * 500 + str(number): (number, "Boolean") for number in range(400)}
    node = EdgeNode(metrics={"": names})
    node.connect()
    await world.take(node.births(START_MS, {("", name): True for name in names}))
    topic, raw = node.data("", START_MS + 1, dict.fromkeys(names, False))
    await world.take([(topic, raw)])

    [reason] = [why for _, value, why in await world.records() if value == raw]
    assert "its values with their names have more than" in (reason or "")


async def test_a_large_append_is_divided(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are committed before they take much memory; each message is whole, and there once."""
    monkeypatch.setattr("headrace.connectors.sparkplug.intake.LARGEST_COMMIT", 200)
    node = EdgeNode(metrics=METRICS)
    node.connect()
    commit, commits = world.log.commit, list[Transaction]()

    async def counted(transaction: Transaction) -> Any:
        commits.append(transaction)
        return await commit(transaction)

    world.log.commit = counted  # type: ignore[method-assign]
    sent = [*node.births(START_MS, VALUES), *(node.data("fan", START_MS + n, {"rpm": n}) for n in range(1, 40))]
    await world.take(sent)
    world.start()
    await world.take(sent)

    assert len(commits) > 5
    found = sorted(value for device, _, value in (await world.values())[0] if device == "plant/press/fan")
    assert found == sorted([VALUES["fan", "rpm"], *range(1, 40)])
