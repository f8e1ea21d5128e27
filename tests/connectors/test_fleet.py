"""The simulated fleet: what it sends, when, and how often it errs."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.connectors.fleet import Fleet
from headrace.connectors.fleet_config import Kind, SimulatedFleetConfig
from headrace.connectors.fleet_episodes import Episode
from headrace.connectors.fleet_faults import MALFORMATIONS, Fault
from headrace.connectors.fleet_messages import FleetMessages, Sample
from headrace.engine.clock import SystemClock, VirtualClock
from headrace.engine.errors import ConfigError
from headrace.tables.device_types import load_device_types

ENVIRONMENTAL = load_device_types()["environmental"]
MINUTE_MS = 60_000
START_MS = 1_704_067_200_000
WELL: dict[str, Any] = {kind.value: 0.0 for kind in Kind}
SOUND = SimulatedFleetConfig(duplicates=0, late=0, malformed=0, conflicting=0, spoofed=0)
#: Default fleet on the demo's clock: 50 devices, 500 messages per second, 60 times real time.
INTERVAL_MS = 6_000.0


class Collector:
    """Takes what is published; stops the fleet after `enough` messages."""

    def __init__(self, enough: int) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.stop = asyncio.Event()
        self._enough = enough

    async def publish(self, topic: str, payload: bytes) -> None:
        """As `MqttPublisher.publish`."""
        self.sent.append((topic, payload))
        if len(self.sent) >= self._enough:
            self.stop.set()

    def event_times(self) -> dict[str, list[int]]:
        """By topic, the event times in the order sent."""
        times: dict[str, list[int]] = defaultdict(list)
        for topic, payload in self.sent:
            times[topic].append(orjson.loads(payload)["timestamp"])
        return times


def samples(config: SimulatedFleetConfig, device: int, minutes: range) -> Iterator[Sample]:
    """What `device` measures in these minutes of the clock's time since sequence 0."""
    messages = FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS)
    per_minute = int(MINUTE_MS / INTERVAL_MS)
    for sequence in range(minutes.start * per_minute, minutes.stop * per_minute):
        yield messages.sample(device, sequence, START_MS + int(sequence * INTERVAL_MS))


@given(st.integers(0, 49), st.integers(0, 100_000), st.integers(0, 2**40))
def test_a_message_is_a_pure_function(device: int, sequence: int, event_time: int) -> None:
    """Seed, device, sequence and time give the same bytes, whatever was made before."""
    config = SimulatedFleetConfig()
    used, fresh = FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS), FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS)
    used.message(1, 2, 3)

    assert used.message(device, sequence, event_time) == fresh.message(device, sequence, event_time)


def test_the_bytes_stay_the_same_over_versions() -> None:
    """The same arguments give these bytes on every machine and Python."""
    message = FleetMessages(SOUND, ENVIRONMENTAL, INTERVAL_MS).message(3, 14, START_MS)

    assert message.payload == (
        b'{"temp":17.54,"humidity":60.0,"co2":458.0,"pm2.5":12.5,"pm10":17.8'
        b',"noise":40.1,"vibration":2.64,"power":90.8,"battery":64.9,"rssi":-66.0,"timestamp":1704067200000,"device_id":"sim-0003"}'
    )


def test_another_seed_is_another_fleet() -> None:
    """The seed changes the values."""
    one, two = (FleetMessages(SOUND.model_copy(update={"seed": seed}), ENVIRONMENTAL, INTERVAL_MS) for seed in (1, 2))

    assert one.message(0, 0, START_MS) != two.message(0, 0, START_MS)


@pytest.mark.parametrize("first_minute", [0, 20, 600])
def test_a_device_overheats_for_minutes_in_every_twenty(first_minute: int) -> None:
    """In any twenty minutes of the clock (a demo of 20 s) some device is above 40 degrees for three minutes on end."""
    longest = 0
    for device in range(50):
        readings = samples(SOUND, device, range(first_minute, first_minute + 20))
        hot = [sample.measures["temperature"] > 40 for sample in readings]
        longest = max(longest, *(len(list(run)) for is_hot, run in itertools.groupby(hot) if is_hot), 0)

    assert longest * INTERVAL_MS >= 3 * MINUTE_MS


def test_ordinary_devices_stay_within_three_deviations() -> None:
    """Nothing but what the fleet means to be odd looks odd."""
    for device in range(5):
        readings = list(samples(SOUND.model_copy(update=WELL), device, range(20)))
        for name in ENVIRONMENTAL.measures:
            values = [sample.measures[name] for sample in readings]
            mean = sum(values) / len(values)
            deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
            assert max(abs(value - mean) for value in values) < 3 * deviation


def test_every_malformation_is_drawn() -> None:
    """A fleet with malformed messages sends all kinds of them."""
    config = SimulatedFleetConfig(malformed=0.9)
    messages = FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS)

    made = [messages.message(0, sequence, START_MS) for sequence in range(300)]

    kinds = {message.payload[:12] + message.payload[-12:] for message in made if message.fault is Fault.MALFORMED}
    assert len(kinds) >= len(MALFORMATIONS)


async def test_event_times_increase_and_keep_up_with_the_clock() -> None:
    """Each device's event times strictly increase in whole ms, at the pace of the virtual clock."""
    clock = VirtualClock(START_MS, speed=60)
    collector = Collector(enough=400)
    fleet = Fleet(SOUND.model_copy(update={"devices": 7, "rate": 1000.0}), ENVIRONMENTAL, clock, collector.publish)

    await fleet.run(collector.stop)

    now = clock.now_ms()
    newest = 0
    for times in collector.event_times().values():
        assert all(earlier < later for earlier, later in itertools.pairwise(times))
        newest = max(newest, times[-1])
    assert START_MS <= newest <= now
    assert fleet.statistics().published == 400
    assert fleet.truth.normal == 400


async def test_a_slow_broker_makes_it_skip_instead_of_falling_behind() -> None:
    """When publishing takes too long for the rate, messages are left out and event times still follow the clock."""
    clock = VirtualClock(START_MS, speed=60)
    collector = Collector(enough=60)

    async def publish_slowly(topic: str, payload: bytes) -> None:
        await SystemClock().sleep(0.02)
        await collector.publish(topic, payload)

    fleet = Fleet(SOUND.model_copy(update={"rate": 2000.0}), ENVIRONMENTAL, clock, publish_slowly)
    running = asyncio.create_task(fleet.run(collector.stop))
    await collector.stop.wait()
    last = orjson.loads(collector.sent[-1][1])["timestamp"]
    behind = clock.real_seconds(clock.now_ms() - last)
    await running

    statistics = fleet.statistics()
    assert statistics.skipped > 100
    assert behind < 1.0
    assert statistics.achieved_rate < 100 < statistics.asked_rate


async def test_truth_counts_what_was_sent() -> None:
    """The counts by kind add up to the messages sent, and faults do what they say."""
    config = SimulatedFleetConfig(
        devices=10,
        rate=20_000,
        duplicates=0.1,
        late=0.1,
        malformed=0.1,
        conflicting=0.1,
        spoofed=0.1,
        late_by_ms=(60, 600),
    )
    collector = Collector(enough=3000)
    fleet = Fleet(config, ENVIRONMENTAL, VirtualClock(START_MS, speed=60), collector.publish)

    await fleet.run(collector.stop)

    truth = fleet.truth
    assert truth.total == len(collector.sent) == fleet.statistics().published
    sound: dict[tuple[str, int], bytes] = {}
    same = other = foreign = broken = 0
    for topic, payload in collector.sent:
        try:
            document = orjson.loads(payload)
            key = (topic, document["timestamp"])
            assert isinstance(document["humidity"], float)
            assert not isinstance(document.get("temp", document.get("temperature", document.get("temp_f"))), str | list)
            assert abs(document["timestamp"] - START_MS) < 24 * 60 * MINUTE_MS
        except (orjson.JSONDecodeError, TypeError, AssertionError):
            broken += 1
            continue
        if document.get("device_id", topic.split("/")[2]) != topic.split("/")[2]:
            foreign += 1
        elif key not in sound:
            sound[key] = payload
        else:
            same += sound[key] == payload
            other += sound[key] != payload
    assert (same, other, foreign, broken) == (truth.duplicate, truth.conflicting, truth.spoofed, truth.malformed)
    assert len(sound) == truth.normal + truth.late
    assert min(truth.duplicate, truth.late, truth.malformed, truth.conflicting, truth.spoofed) > 100


async def test_the_next_run_goes_on_where_this_one_stopped() -> None:
    """`next_sequence` is one that no device has used, and a fleet started with it repeats no message."""
    first, second = Collector(enough=333), Collector(enough=333)
    config = SOUND.model_copy(update={"devices": 10, "rate": 5000.0})
    fleet = Fleet(config, ENVIRONMENTAL, VirtualClock(START_MS, speed=60), first.publish)
    await fleet.run(first.stop)

    again = Fleet(
        config,
        ENVIRONMENTAL,
        VirtualClock(START_MS + 60 * MINUTE_MS, speed=60),
        second.publish,
        start_sequence=fleet.next_sequence,
    )
    await again.run(second.stop)

    assert fleet.next_sequence == 34
    assert again.next_sequence == 68
    for topic, times in second.event_times().items():
        assert times[0] > first.event_times()[topic][-1]


async def test_some_sound_messages_are_marked() -> None:
    """`on_published` hears of every n-th sound message before it is sent."""
    collector = Collector(enough=200)
    marked: list[tuple[str, int, int]] = []
    fleet = Fleet(
        SOUND.model_copy(update={"mark_every": 20, "rate": 5000.0}),
        ENVIRONMENTAL,
        VirtualClock(START_MS, speed=60),
        collector.publish,
        on_published=lambda device_id, time: marked.append((device_id, time, len(collector.sent))),
    )

    await fleet.run(collector.stop)

    assert [place for _, _, place in marked] == list(range(19, 200, 20))
    for device_id, time, place in marked:
        topic, payload = collector.sent[place]
        assert topic == f"dt/devices/{device_id}/telemetry"
        assert orjson.loads(payload)["timestamp"] == time


async def test_episodes_are_told_also_those_still_running_at_the_end() -> None:
    """With the event times of the first and last message that shows them."""
    collector, told = Collector(enough=1500), list[Episode]()
    config = SOUND.model_copy(update={**WELL, "burst": 0.2, "gap": 0.2, "devices": 5, "rate": 2000.0})
    fleet = Fleet(config, ENVIRONMENTAL, VirtualClock(START_MS, speed=600), collector.publish, on_episode=told.append)

    await fleet.run(collector.stop)

    times = collector.event_times()
    (burst,) = [episode for episode in told if episode.kind is Kind.BURST]
    (gap,) = [episode for episode in told if episode.kind is Kind.GAP]
    assert burst.metric == "temperature"
    assert {burst.first_ms, burst.last_ms} <= {*times[f"dt/devices/{burst.device}/telemetry"]}
    assert not [time for time in times[f"dt/devices/{gap.device}/telemetry"] if gap.first_ms <= time <= gap.last_ms]
    assert burst.first_ms < burst.last_ms
    assert gap.first_ms < gap.last_ms


def test_too_fast_a_fleet_is_a_configuration_error() -> None:
    """Whole ms must be enough to tell a device's messages apart."""

    async def publish(topic: str, payload: bytes) -> None:
        raise AssertionError("never called")

    with pytest.raises(ConfigError, match="more devices or a lower rate"):
        Fleet(SOUND.model_copy(update={"devices": 1, "rate": 2000.0}), ENVIRONMENTAL, SystemClock(), publish)


def test_shares_above_one_are_refused() -> None:
    """Faults exclude each other, so their shares cannot exceed the whole."""
    with pytest.raises(ValidationError, match="more than 1"):
        SimulatedFleetConfig(late=0.6, spoofed=0.6)


def test_default_shares_are_kept() -> None:
    """Over many messages each fault comes about as often as configured."""
    config = SimulatedFleetConfig()
    messages = FleetMessages(config, ENVIRONMENTAL, INTERVAL_MS)
    faults = [messages.message(device, sequence, 0).fault for device in range(50) for sequence in range(200)]

    assert 70 <= faults.count(Fault.DUPLICATE) <= 130
    assert 30 <= faults.count(Fault.SPOOFED) <= 75
