"""`headrace explain`."""

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Headrace
from tests.connectors.sparkplug.edge_node import metric, payload

TILT = """
[[profiles]]
name = "slopes"
topic = "tilt/{device}"
device_type = "tilt"
alarm = { field = "status", values = ["alarm", "critical"] }
"""
NOW = 1_750_000_000_000
HOT = '{"timestamp": 1750000000000, "temp": 45, "firmware": "1.2"}'


@pytest.fixture
def tilt(tmp_path: Path) -> Path:
    """Settings with a profile that knows alarms."""
    file = tmp_path / "tilt.toml"
    file.write_text(TILT)
    return file


def test_the_route_of_a_message(headrace: Headrace) -> None:
    """Where it goes, what becomes of it, and the rules that hold."""
    told = orjson.loads(headrace("explain", "dt/devices/roof-7/telemetry", HOT, "--json").stdout)
    shown = headrace("explain", "dt/devices/roof-7/telemetry", HOT).stdout.decode()

    assert {name: told[name] for name in ("profile", "device", "device_type", "lane", "partition", "partitions")} == {
        **{"profile": "devices", "device": "roof-7", "device_type": "environmental"},
        **{"lane": "normal", "partition": 0, "partitions": 4},
    }
    assert told["goes_to"] == ["telemetry.raw", "telemetry.readings"]
    assert told["reading"]["measures"] == {"temperature": 45}
    assert told["reading"]["extra"] == {"firmware": "1.2"}
    assert [rule["rule_id"] for rule in told["rules"]] == ["overheating"]
    for part in (
        "in the topic",
        "temperature 45",
        "degC",
        "unknown field, kept in extra",
        "overheating: temperature > 40",
    ):
        assert part in shown


def test_square_brackets_are_text(headrace: Headrace) -> None:
    """In what a device calls itself or sends they are no styles of the table."""
    payload = '{"timestamp": 1750000000000, "temp": 4, "note": "see [/b] [red]x"}'
    shown = headrace("explain", "dt/devices/[red]hall/telemetry", payload).stdout.decode()

    assert "[red]hall" in shown
    assert "see [/b] [red]x" in shown


def test_an_unknown_topic(headrace: Headrace) -> None:
    """It says what was probably meant, and where the message ends."""
    told = orjson.loads(headrace("explain", "dt/device/roof-7/telemetry", HOT, "--json").stdout)

    assert (told["profile"], told["device"], told["device_type"], told["reading"]) == (None, None, None, None)
    assert told["profile_why"].endswith("; did you mean 'dt/devices/roof-7/telemetry'?")
    assert told["dead_letter"] == "no topic profile takes the topic 'dt/device/roof-7/telemetry'"
    assert told["goes_to"] == ["telemetry.raw", "telemetry.dlq"]


def test_the_lane_of_an_alarm(headrace: Headrace, tilt: Path) -> None:
    """Both lanes of an alarm, and why it is one."""
    row = '{"timestamp": 1750000000000, "tilt_angle": 4.1, "status": "%s"}'
    alarm, normal = [
        orjson.loads(headrace("explain", "tilt/wall-3", row % status, "--json", "--config", tilt).stdout)
        for status in ("critical", "normal")
    ]

    assert (alarm["lane"], alarm["lane_why"]) == ("priority", 'status in the payload is one of "alarm", "critical"')
    assert alarm["goes_to"][2:] == ["telemetry.raw.priority", "telemetry.readings.priority"]
    assert (normal["lane"], normal["lane_why"]) == ("normal", 'status in the payload is none of "alarm", "critical"')
    assert normal["goes_to"] == ["telemetry.raw", "telemetry.readings"]


def test_the_payload_of_a_file(headrace: Headrace, tmp_path: Path) -> None:
    """Bytes that no command line can hold come from a file."""
    file = tmp_path / "payload"
    file.write_bytes(b'{"device_id": "c-1", "note": "\xff"}')

    told = orjson.loads(headrace("explain", "iot/data", f"@{file}", "--json").stdout)

    assert told["device"] == "c-1"
    assert told["dead_letter"].startswith("payload is not UTF-8")


def test_every_mistake_of_the_configuration(headrace: Headrace, tilt: Path) -> None:
    """All profiles are looked at, and device types must be there."""
    tilt.write_text(TILT.replace("{device}", "{id}") + TILT.replace("status", "").replace("slopes", ""))
    broken = headrace("explain", "tilt/wall-3", "{}", "--config", tilt, code=2).stderr
    tilt.write_text(TILT.replace('"tilt"', '"tlt"'))
    untyped = headrace("explain", "tilt/wall-3", "{}", "--config", tilt, code=2).stderr

    assert [each in broken for each in ("profiles.0.topic", "profiles.1.name", "profiles.1.alarm.field")] == [True] * 3
    assert "profile slopes: device type 'tlt' is unknown; did you mean 'tilt'?" in untyped


FORMATS = """
[[profiles]]
name = "gateways"
topic = "v1/gateway/#"
device_type = "environmental"
format = "thingsboard-gateway"
"""


def test_a_message_of_several_records(headrace: Headrace, tmp_path: Path) -> None:
    """Each is told with its device and what becomes of it, contradictions between them too."""
    file = tmp_path / "formats.toml"
    file.write_text(FORMATS)
    entries = [{"ts": 1750000000000, "values": {"temp": value}} for value in (45, 46)]
    payload = orjson.dumps({"a": entries, "b": [{"ts": 1750000000000, "values": {"temp": "hot"}}]}).decode()

    told = orjson.loads(headrace("explain", "v1/gateway/telemetry", payload, "--json", "--config", file).stdout)
    shown = headrace("explain", "v1/gateway/telemetry", payload, "--config", file).stdout.decode()

    assert (told["format"], told["records"], told["device"], told["event"]) == ("thingsboard-gateway", 3, "a", None)
    assert told["device_why"] == "in the payload"
    assert [(part["device"], part["goes_to"][1]) for part in told["parts"]] == [
        ("a", "telemetry.readings"),
        ("a", "telemetry.conflicts"),
        ("b", "telemetry.dlq"),
    ]
    assert told["parts"][0]["reading"]["measures"] == {"temperature": 45}
    assert told["parts"][2]["dead_letter"] == "temperature is the text 'hot', not a number"
    assert "record 3" in shown
    assert "3 records" in shown


def test_a_message_that_is_no_reading(headrace: Headrace, tmp_path: Path) -> None:
    """It says what it is about, and where it goes."""
    file = tmp_path / "formats.toml"
    file.write_text(FORMATS)

    told = orjson.loads(headrace("explain", "v1/gateway/connect", '{"device": "a"}', "--json", "--config", file).stdout)

    assert (told["event"], told["device"], told["goes_to"]) == ("connect", "a", ["devices.events"])
    assert (told["reading"], told["dead_letter"], told["records"]) == (None, None, 0)


METERS = """
[[profiles]]
name = "meters"
topic = "meters/{device}"
device_type = "environmental"
sequence = { field = "seq", modulo = 65536 }
"""


@pytest.mark.parametrize(
    ("seq", "told"),
    [
        ("7", ["sequence", "7", "of 65,536 numbers"]),
        ("7.0", ["sequence", "7", "of 65,536 numbers"]),
        ("-1", ["not counted", "-1 is no whole number from 0 to 65535"]),
        ('"7"', ["not counted", "'7' is no whole number from 0 to 65535"]),
        ("65536", ["not counted", "65536 is no whole number"]),
        ("true", ["not counted", "a boolean is no whole number"]),
        ("9" * 30, ["not counted", "is no whole number"]),
    ],
)
def test_sequence_numbers(headrace: Headrace, tmp_path: Path, seq: str, told: list[str]) -> None:
    """The number and how many there are, or why it is none that could be counted."""
    (tmp_path / "meters.toml").write_text(METERS)
    sent = f'{{"timestamp": 1750000000000, "temp": 4, "seq": {seq}}}'

    shown = headrace("explain", "meters/m", sent, "--config", tmp_path / "meters.toml").stdout.decode()

    for part in told:
        assert part in shown
    assert ("devices.sequences" in shown) == ("not counted" not in shown)


PLANT = '[[profiles]]\nname = "plant"\ntopic = "spBv1.0/#"\ndevice_type = "environmental"\nformat = "sparkplug"\n'


@pytest.mark.parametrize(
    ("topic", "message", "event", "device"),
    [
        (
            "plant/NDEATH/press",
            payload([metric("bdSeq", "Int64", 0)], None, None),
            "death of an edge node",
            "plant/press",
        ),
        ("plant/NBIRTH/press", payload([], 0, NOW), "birth of an edge node, without values", "plant/press"),
        ("plant/DDEATH/press/motor", payload([], 1, NOW), "death of a device", "plant/press/motor"),
        ("plant/NCMD/press", payload([], None, NOW), "command, which is for the edge node alone", None),
        ("STATE/host", b'{"online": true}', "state of a host application", None),
    ],
)
def test_sparkplug_without_values(
    headrace: Headrace, tmp_path: Path, topic: str, message: bytes, event: str, device: str | None
) -> None:
    """What a message is that makes no record is said; it is no mistake."""
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "message").write_bytes(message)
    arguments = ["explain", f"spBv1.0/{topic}", f"@{tmp_path / 'message'}", "--config", tmp_path / "plant.toml"]

    told = orjson.loads(headrace(*arguments, "--json").stdout)
    shown = headrace(*arguments).stdout.decode()

    assert (told["event"], told["device"], told["records"], told["reading"]) == (event, device, 0, None)
    assert event in shown
