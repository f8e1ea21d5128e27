"""The simulated fleet sends what any device type describes."""

from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from headrace.agents.decode import Reasons
from headrace.agents.exact_path import Limits
from headrace.agents.normalised import Normalised
from headrace.agents.read_payloads import PayloadReader
from headrace.connectors.fleet_config import SimulatedFleetConfig
from headrace.connectors.fleet_faults import MALFORMATIONS, Fault
from headrace.connectors.fleet_messages import FleetMessages, Message
from headrace.connectors.fleet_payload import FleetPayload
from headrace.engine.errors import ConfigError
from headrace.schemas.catch_all import CATCH_ALL
from headrace.schemas.device_type import DeviceType
from headrace.schemas.simulate import simulated
from headrace.tables.device_types import load_device_types

START_MS = 1_704_067_200_000
INTERVAL_MS = 6_000.0
DEVICES = 10
BOILER = DeviceType.model_validate(
    {
        "name": "boiler",
        "unknown_fields": "quarantine",
        "own_units": ["scoop"],
        "time": {"formats": ["epoch_s"]},
        "fields": {
            "starts": {"type": "integer", "kind": "counter", "max": 65535, "simulate": {"rate": [5, 500]}},
            "burning": {"type": "boolean", "nullable": False},
            "temperature": {"unit": "degC", "min": 60, "max": 61, "required": True, "aliases": {"t": "degF"}},
            "gas": {"unit": "m3", "kind": "counter", "aliases": {"litres": "L"}},
            "pellets": {"type": "integer", "unit": "scoop", "min": 0, "aliases": {"scoops": "scoop"}},
            "pressure": {"unit": "psi", "max": 30},
            "vacuum": {"unit": "Pa", "min": -1e-3, "max": 1e-3},
            "mood": {"type": "text", "aliases": {"state": "1"}, "simulate": {"values": ["good", "bad"]}},
        },
    }
)
TYPES = {**load_device_types(), "boiler": BOILER}

each_type = pytest.mark.parametrize("device_type", TYPES.values(), ids=lambda each: each.name)


def messages(device_type: DeviceType, per_device: int = 110, **settings: float) -> Iterator[Message]:
    """What a fleet of this type sends."""
    made = FleetMessages(SimulatedFleetConfig(devices=DEVICES, **settings), device_type, INTERVAL_MS)
    for sequence in range(per_device):
        for device in range(DEVICES):
            yield made.message(device, sequence, START_MS + int(sequence * INTERVAL_MS))


def read(device_type: DeviceType, sent: list[tuple[str, int, bytes]]) -> tuple[Normalised, Reasons]:
    """As ingest reads them, a second after they were made."""
    reasons: Reasons = {}
    ids, times, payloads = [list(column) for column in zip(*sent, strict=True)]
    reader = PayloadReader(device_type, Limits(1 << 20, 300_000))
    found, unknown = reader.read(payloads, ids, np.array(times, dtype=np.int64) + 1000, reasons)
    assert unknown == {}
    return found, reasons


@each_type
def test_ingest_takes_every_sound_message(device_type: DeviceType) -> None:
    """Whatever is wrong with the device; nothing in them is unknown, and every field is there."""
    sent = list(messages(device_type))
    sound = [each for each in sent if each.fault in (Fault.NONE, Fault.DUPLICATE, Fault.LATE, Fault.CONFLICTING)]

    found, reasons = read(device_type, [(each.device_id, each.time_ms, each.payload) for each in sound])

    assert reasons == {}
    assert len(found) == len(sound) > 1000
    assert found.times.tolist() == [each.time_ms for each in sound]
    assert found.measures.keys() == {*device_type.measures}
    assert all((~np.isnan(column)).any() for column in found.measures.values())


@each_type
def test_ingest_refuses_malformed_and_spoofed_messages(device_type: DeviceType) -> None:
    """Every one."""
    sent = [each for each in messages(device_type, malformed=0.5, spoofed=0.4) if each.fault is Fault.MALFORMED]
    sent += [each for each in messages(device_type, spoofed=0.5) if each.fault is Fault.SPOOFED]

    found, reasons = read(device_type, [(each.device_id, each.time_ms, each.payload) for each in sent])

    assert [sent[row] for row in found.rows.tolist()] == []
    assert len(reasons) == len(sent) > 1000


@each_type
def test_conflicting_messages_say_something_else_about_the_same_time(device_type: DeviceType) -> None:
    """And both are sound."""
    pairs = [each for each in messages(device_type, conflicting=0.5) if each.fault is Fault.CONFLICTING]

    first, _ = read(device_type, [(each.device_id, each.time_ms, each.payload) for each in pairs])
    second, reasons = read(device_type, [(each.device_id, each.time_ms, each.second or b"") for each in pairs])

    assert reasons == {}
    assert (first.times == second.times).all()
    differ = [~np.isclose(column, second.measures[name], equal_nan=True) for name, column in first.measures.items()]
    assert np.any(differ, axis=0).all()


@each_type
def test_readings_are_what_was_measured(device_type: DeviceType) -> None:
    """The units and names that a device reports in make no difference, but for rounding."""
    made = FleetMessages(SimulatedFleetConfig(devices=DEVICES, malformed=0, spoofed=0), device_type, INTERVAL_MS)
    places = [(device, sequence, START_MS + sequence) for device in range(DEVICES) for sequence in range(20)]
    samples, sent = [made.sample(*place) for place in places], [made.message(*place) for place in places]

    found, _ = read(device_type, [(each.device_id, each.time_ms, each.payload) for each in sent])

    for name, column in found.measures.items():
        measured = np.array([sample.measures[name] for sample in samples])
        step = simulated(name, device_type.fields[name]).step
        assert (np.isnan(column) | (np.abs(column - measured) <= step)).all()


def test_devices_report_under_all_names_and_units() -> None:
    """Fahrenheit too, and the units that messages name."""
    names = {name for each in messages(TYPES["environmental"], 1, malformed=0) for name in orjson.loads(each.payload)}
    units = {orjson.loads(each.payload)["unit"] for each in messages(TYPES["collector"], 7, malformed=0)}

    assert {"temperature", "temp", "temp_f", "pm25", "pm2.5", "signalStrength", "rssi"} <= names
    assert {"C", "F", "RH", "lux", "hPa", "V"} <= units


def test_texts_and_times_are_as_the_type_writes_them() -> None:
    """A device keeps to its text; times are seconds, ms or ISO 8601."""
    texts = {each.device_id: orjson.loads(each.payload) for each in messages(BOILER, 1, malformed=0)}
    (tilt, *_) = messages(TYPES["tilt"], 1, malformed=0)

    assert {text.get("mood") or text["state"] for text in texts.values()} == {"good", "bad"}
    assert {text["timestamp"] for text in texts.values()} == {START_MS / 1000}
    assert orjson.loads(tilt.payload)["timestamp"] == "2024-01-01T00:00:00.000+00:00"


def test_counters_rise_and_start_over_when_a_device_restarts() -> None:
    """Never otherwise."""
    made = FleetMessages(SimulatedFleetConfig(devices=3, reboot=0.3, burst=0, spike=0), TYPES["meter"], INTERVAL_MS)
    fell = restarted = 0
    for device in range(3):
        before, silent = 0.0, False
        for sequence in range(2_000):
            sample = made.sample(device, sequence, START_MS + int(sequence * INTERVAL_MS))
            energy = sample.measures["energy"]
            if sample.silent:
                silent = True
                continue
            fell += energy < before and not silent
            restarted += energy < before
            before, silent = energy, False

    assert fell == 0
    assert restarted > 3


def test_a_type_without_numbers_cannot_be_simulated() -> None:
    """There is nothing to measure."""
    with pytest.raises(ConfigError, match="nothing to simulate"):
        FleetMessages(SimulatedFleetConfig(), CATCH_ALL, INTERVAL_MS)


@pytest.mark.parametrize("number", range(len(MALFORMATIONS)))
@each_type
def test_every_malformation_is_refused(device_type: DeviceType, number: int) -> None:
    """Undecodable, of the wrong types, or from a wrong year."""
    payload = FleetPayload(device_type, 7, DEVICES)
    made = FleetMessages(SimulatedFleetConfig(devices=DEVICES), device_type, INTERVAL_MS)
    sent = []
    for device in range(DEVICES):
        written = payload.write(device, 0, made.sample(device, 0, START_MS).measures, {}, START_MS)
        sent.append((f"sim-{device:04d}", START_MS, MALFORMATIONS[number](written, payload, START_MS)))

    _, reasons = read(device_type, sent)

    assert len(reasons) == DEVICES
