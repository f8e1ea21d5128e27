"""The Kinesis intake, against a real HTTP server and a way to it on which things go wrong."""

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from random import Random

import orjson
import pytest
import structlog
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headrace.connectors.kinesis.record import MAX_RECORD_BYTES
from headrace.connectors.kinesis.sink import KinesisIntake, open_kinesis
from headrace.engine.clock import SteppedClock, SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Mark
from headrace.engine.metrics import Metrics
from tests.connectors.kinesis.aws import Fault, FaultyWay, Stream, client, settings

KINDS = ["error", "reset", "lost_error", "lost_reset"]
faults = st.lists(
    st.builds(Fault, st.just("refuse"), st.integers(0, 0xFFFF)) | st.builds(Fault, st.sampled_from(KINDS)), max_size=8
)
appends = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=12), min_size=1, max_size=3)


async def append(intake: KinesisIntake, device_ids: Sequence[bytes], payloads: Sequence[bytes]) -> None:
    """As a source does."""
    await intake.append(device_ids, payloads, device_type="environmental", profile="standard", sources=b"from")


def without_repeats(payloads: list[bytes]) -> list[bytes]:
    """Payloads that came several times one after the other, once."""
    return [payload for payload, _ in groupby(payloads)]


class Laboratory:
    """One intake, its stream and the way there, kept for all examples of a test: opening them takes longest."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()

    def __enter__(self) -> "Laboratory":
        self._runner.run(self._enter())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    async def _enter(self) -> None:
        self._stream = Stream(await self._open.enter_async_context(client(self._url)), "fleet")
        await self._stream.make()
        self._way = await self._open.enter_async_context(FaultyWay(self._url))
        opening = open_kinesis(settings(self._way.url), SteppedClock())
        self._intake = await self._open.enter_async_context(opening)

    def check(self, appends: list[list[str]], faults: list[Fault], requests: int) -> None:
        """Append, with these faults, and compare what is there after each append."""
        self._runner.run(self._check(appends, faults, requests))

    async def _check(self, appends: list[list[str]], faults: list[Fault], requests: int) -> None:
        await self._stream.make()
        self._way.faults = deque(faults)
        self._intake._requests = requests
        sent: dict[str, list[bytes]] = {}
        for number, devices in enumerate(appends):
            payloads = [b"%d.%d \x00\xff" % (number, place) for place in range(len(devices))]
            await append(self._intake, [device.encode() for device in devices], payloads)
            for device, payload in zip(devices, payloads, strict=True):
                sent.setdefault(device, []).append(payload)
            found = await self._stream.devices()
            assert {device: without_repeats(got) for device, got in found.items()} == sent
        assert self._way.wrong == []


@pytest.fixture(scope="module")
def laboratory(kinesis_url: str) -> Iterator[Laboratory]:
    """For the property below."""
    with Laboratory(kinesis_url) as made:
        yield made


@given(appends=appends, faults=faults, requests=st.integers(1, 3))
@example(appends=[["a", "b", "a", "a"]], faults=[Fault("refuse", 1), Fault("lost_reset")], requests=1)
@examples(max_examples=30)
def test_every_payload_arrives_in_order_of_its_device(
    laboratory: Laboratory, appends: list[list[str]], faults: list[Fault], requests: int
) -> None:
    """Whatever is refused or lost: each payload is there when its append returns, never behind a later one."""
    laboratory.check(appends, faults, requests)


async def test_refusals_alone_repeat_nothing(kinesis_url: str, stream: Stream) -> None:
    """What Kinesis refused is sent again, what it took is not: every record is there exactly once."""
    devices = [b"d%d" % (number % 7) for number in range(70)]
    payloads = [b"%d" % number for number in range(70)]
    metrics = Metrics()
    async with (
        FaultyWay(kinesis_url, [Fault("refuse", 0b1010101010101010), Fault("refuse", 0xFFFF)]) as way,
        open_kinesis(settings(way.url), SteppedClock(), metrics) as intake,
    ):
        await append(intake, devices, payloads)

    found = await stream.devices()
    assert found == {f"d{device}": [b"%d" % number for number in range(device, 70, 7)] for device in range(7)}
    assert metrics.value("headrace_kinesis_records_total") == 70
    assert metrics.value("headrace_kinesis_retries_total", reason="refused") == 3 + 7
    assert metrics.value("headrace_kinesis_failures_total") == 0


async def test_requests_are_full_and_within_the_limits(kinesis_url: str, stream: Stream) -> None:
    """1,700 devices go in requests of 425; 12 payloads of 900 KB in requests of at most 5 MiB."""
    async with FaultyWay(kinesis_url) as way, open_kinesis(settings(way.url), SystemClock()) as intake:
        await append(intake, [b"d%d" % number for number in range(1700)], [b"x"] * 1700)
        many, way.requests = way.requests, []
        await append(intake, [b"d%d" % number for number in range(12)], [b"x" * 900_000] * 12)

    assert many == [425] * 4
    assert sorted(way.requests) == [4, 4, 4]
    assert way.wrong == []
    assert sum(map(len, (await stream.devices()).values())) == 1712


async def test_silence_is_repeated(kinesis_url: str, stream: Stream) -> None:
    """An answer that does not come counts as failed after `request_timeout`; what it was about is sent again."""
    faults = [Fault("silent"), Fault("lost_silent")]
    async with (
        FaultyWay(kinesis_url, faults, patience=10) as way,
        open_kinesis(settings(way.url, request_timeout=10), SteppedClock()) as intake,
    ):
        await append(intake, [b"a", b"a"], [b"1", b"2"])

    assert await stream.devices() == {"a": [b"1", b"1", b"2"]}


async def test_append_waits_while_kinesis_is_away(kinesis_url: str, stream: Stream) -> None:
    """Nothing listens there for a while: the append goes on trying, and waits longer from time to time."""
    clock = SteppedClock()
    metrics = Metrics()
    async with FaultyWay(kinesis_url, [Fault("reset")] * 40) as way:
        with structlog.testing.capture_logs() as logs:
            async with open_kinesis(settings(way.url), clock, metrics) as intake:
                await append(intake, [b"a"], [b"1"])

    assert await stream.devices() == {"a": [b"1"]}
    assert [entry["event"] for entry in logs] == ["kinesis_retry"] * 40
    assert metrics.value("headrace_kinesis_failures_total") == 40
    # 40 draws below a limit that doubles from 0.1 s and stays at 30 s: 460 s on average.
    assert 200 < clock.monotonic() < 31 * 30 + 52


async def test_the_wait_is_random_below_a_doubling_limit(kinesis_url: str, stream: Stream) -> None:
    """After n failures in a row between 0 and 2^n × 100 ms."""

    class Longest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    clock = SteppedClock()
    async with FaultyWay(kinesis_url, [Fault("error")] * 3) as way, open_kinesis(settings(way.url), clock) as intake:
        intake._random = Longest()
        await append(intake, [b"a"], [b"1"])

    assert clock.monotonic() == pytest.approx(0.2 + 0.4 + 0.8)


async def test_two_appends_do_not_overtake_each_other(kinesis_url: str, stream: Stream) -> None:
    """Appends at the same time go in one after the other, though the first is held up."""
    async with (
        FaultyWay(kinesis_url, [Fault("reset"), Fault("refuse", 1)]) as way,
        open_kinesis(settings(way.url), SteppedClock()) as intake,
        asyncio.TaskGroup() as group,
    ):
        for number in range(5):
            group.create_task(append(intake, [b"a"], [b"%d" % number]))

    assert await stream.devices() == {"a": [b"0", b"1", b"2", b"3", b"4"]}
    assert way.wrong == []


async def test_too_large_a_payload_leaves_a_notice(kinesis_url: str, stream: Stream) -> None:
    """In the place of what Kinesis does not take is a notice with its beginning; the largest that it takes is whole."""
    largest = bytes(Random(1).randbytes(MAX_RECORD_BYTES - 1))
    larger = largest + b"!"
    metrics = Metrics()
    async with open_kinesis(settings(kinesis_url), SystemClock(), metrics) as intake:
        await append(intake, [b"a"] * 4, [b"before", largest, larger, b"after"])

    before, whole, notice, after = (await stream.devices())["a"]
    assert (before, after) == (b"before", b"after")
    assert whole == largest
    assert orjson.loads(notice) == {
        "headrace_oversized": {
            "device_id": "a",
            "topic": "from",
            "payload_bytes": MAX_RECORD_BYTES,
            "sha256": hashlib.sha256(larger).hexdigest(),
            "beginning": base64.b64encode(larger[: 64 << 10]).decode(),
        }
    }
    assert metrics.value("headrace_kinesis_oversized_total") == 1


async def test_device_ids_are_partition_keys(kinesis_url: str, stream: Stream) -> None:
    """As they are, in any script; 256 characters at most, longer ones as their hash."""
    names = ["roof-7", "k" * 256, "ü" * 256, "k" * 257, "🌡" * 129]
    async with open_kinesis(settings(kinesis_url), SystemClock()) as intake:
        await append(intake, [name.encode() for name in names], [b"", b"2", b"3", b"4", b"5"])

    records = [record for shard in await stream.shards() for record in shard]
    hashed = [f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in names[3:]]
    assert dict(records) == dict(zip([*names[:3], *hashed], [b"", b"2", b"3", b"4", b"5"], strict=True))


async def test_a_stream_that_is_not_there_is_a_configuration_error(kinesis_url: str, stream: Stream) -> None:
    """Found when the intake is opened, before a device is told anything; the message names what to mend."""
    with pytest.raises(
        ConfigError, match=r"stream nowhere: there is no such stream in this region; make it, or correct"
    ):
        async with open_kinesis(settings(kinesis_url, "nowhere"), SystemClock()):
            pass


async def test_a_stream_that_goes_away_ends_the_append(kinesis_url: str, stream: Stream) -> None:
    """Deleted meanwhile: a configuration error, not an endless wait."""
    async with open_kinesis(settings(kinesis_url), SystemClock()) as intake:
        await append(intake, [b"a"], [b"1"])
        await stream.delete()

        with pytest.raises(ConfigError, match="no such stream"):
            await append(intake, [b"a"], [b"2"])


async def test_a_stream_may_be_named_by_its_arn(kinesis_url: str, stream: Stream) -> None:
    """Its region is in there."""
    arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/fleet"
    async with open_kinesis(settings(kinesis_url, arn, region=None), SystemClock()) as intake:
        await append(intake, [b"a"], [b"1"])

    assert await stream.devices() == {"a": [b"1"]}


async def test_positions_of_sources_are_refused(kinesis_url: str, stream: Stream) -> None:
    """A mark could not be kept with its messages, so nothing is sent."""
    async with open_kinesis(settings(kinesis_url), SystemClock()) as intake:
        with pytest.raises(ValueError, match="keeps no positions"):
            await intake.append([b"a"], [b"1"], mark=Mark("file", b"1"))

    assert await stream.devices() == {}
