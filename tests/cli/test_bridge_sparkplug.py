"""`headrace bridge` and `explain` with Sparkplug B: what is refused, and what becomes of a message."""

import re
import tomllib
from pathlib import Path

import orjson
import pytest

from headrace.cli.settings import Settings
from headrace.engine.file_lock import lock_file
from tests.cli.conftest import Headrace, in_subprocess

PROFILE = """
[[profiles]]
name = "plant"
topic = "spBv1.0/#"
device_type = "environmental"
format = "sparkplug"
"""


@pytest.mark.parametrize(
    ("more", "options", "reason"),
    [
        ("", ["--processes", "2"], "have to come to one process"),
        ('share = "group"', [], "mqtt.share: Sparkplug messages of an edge node have to come to one process"),
        ('[bridge]\ninto = "kinesis"\n[kinesis]\nstream = "s"\n', [], "profile plant has a format"),
        ('schedule = "rate(5 minutes)"\n[sparkplug]\nhost_id = "h"\n', [], "would be gone most of the time"),
        ('[sparkplug]\nhost_id = "a/b"\n', [], "sparkplug.host_id"),
    ],
)
def test_what_does_not_go_with_it(
    headrace: Headrace, tmp_path: Path, more: str, options: list[str], reason: str
) -> None:
    """A mistake in the settings ends it at once, with what to do."""
    config = tmp_path / "headrace.toml"
    config.write_text(f'[mqtt]\nhost = "127.0.0.1"\n{more}\n{PROFILE}')

    said = headrace("bridge", "--config", config, "--data", tmp_path / "data", *options, code=2)

    assert reason in " ".join(said.stderr.split())


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ('topic = "plant/#"', "begin with spBv1.0/"),
        ('topic = "spBv1.0/+/+/{device}"', "leave {device}, {type}, device_field and device_types out"),
        ('topic = "spBv1.0/#"\nalarm = true', "no Sparkplug message is an alarm"),
    ],
)
def test_a_profile_that_cannot_be(headrace: Headrace, tmp_path: Path, profile: str, reason: str) -> None:
    """So it is with a topic profile."""
    config = tmp_path / "headrace.toml"
    config.write_text(
        f'[mqtt]\nhost = "127.0.0.1"\n[[profiles]]\nname = "p"\ndevice_type = "environmental"\n{profile}\n'
        'format = "sparkplug"\n'
    )

    said = headrace("bridge", "--config", config, "--data", tmp_path / "data", code=2)

    assert reason in " ".join(said.stderr.split())


def test_two_bridges_on_one_log(tmp_path: Path) -> None:
    """The second is refused: each would know half of every edge node."""
    config = tmp_path / "headrace.toml"
    config.write_text(f'[mqtt]\nhost = "127.0.0.1"\n{PROFILE}')
    (tmp_path / "data").mkdir()
    with lock_file(tmp_path / "data" / "sparkplug.lock"):
        said = in_subprocess("bridge", "--config", config, "--data", tmp_path / "data", code=2)

    assert "a bridge takes Sparkplug messages into" in said.stderr


GOLDEN = Path(__file__).parents[1] / "connectors" / "sparkplug" / "golden"
TYPE = """
name = "press"
[fields.voltage]
unit = "V"
aliases = { "Supply Voltage" = "V" }
"""


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """Settings with a device type that reads metrics by their names."""
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "press.toml").write_text(TYPE)
    config = tmp_path / "headrace.toml"
    config.write_text(f'device_types = "{tmp_path / "types"}"\n{PROFILE.replace("environmental", "press")}')
    return config


def test_the_route_of_a_birth(headrace: Headrace, plant: Path) -> None:
    """Its metrics become a reading, by the names that the device type knows them under."""
    said = headrace("explain", "spBv1.0/G/NBIRTH/pi", f"@{GOLDEN / 'nbirth.bin'}", "--config", plant, "--json").stdout
    told = orjson.loads(said)

    assert (told["device"], told["profile"], told["format"]) == ("G/pi", "plant", "sparkplug")
    assert told["reading"]["measures"] == {"voltage": 12.1}
    assert told["reading"]["extra"]["Properties/Hardware Make"] == "Raspberry Pi"


def test_the_route_of_data(headrace: Headrace, plant: Path) -> None:
    """Without the births before them nobody knows what they say, and that is told."""
    said = headrace("explain", "spBv1.0/G/DDATA/pi/m", f"@{GOLDEN / 'ddata.bin'}", "--config", plant, "--json").stdout

    assert orjson.loads(said)["dead_letter"] == "profile plant: no birth certificate explained it in 60 s"


def test_the_route_of_a_command(headrace: Headrace, plant: Path) -> None:
    """It ends here: no record is made of it, and that is told."""
    said = headrace("explain", "spBv1.0/G/NCMD/pi", f"@{GOLDEN / 'ncmd.bin'}", "--config", plant).stdout

    assert b"command, which is for the edge node alone" in said


def test_the_guide_is_right(headrace: Headrace, tmp_path: Path) -> None:
    """Its settings load, and its device type reads the specification's own example by its profile."""
    page = (Path(__file__).parents[2] / "docs" / "guides" / "sparkplug.md").read_text()
    bridge, device_type, *others = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for block in others:
        assert Settings(**tomllib.loads(block)) != Settings()
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "press.toml").write_text(device_type)
    config = tmp_path / "headrace.toml"
    config.write_text(bridge.replace('"types"', f'"{tmp_path / "types"}"'))
    birth = GOLDEN / "nbirth.bin"

    said = headrace("explain", "spBv1.0/G/NBIRTH/pi", f"@{birth}", "--config", config, "--json").stdout

    assert orjson.loads(said)["reading"]["measures"] == {"voltage": 12.1}
