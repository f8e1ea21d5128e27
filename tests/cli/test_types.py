"""`headrace types`."""

import re
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Headrace

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "device-types.md"
BOILER = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0]


@pytest.fixture
def boiler(tmp_path: Path) -> Path:
    """The example of the guide."""
    file = tmp_path / "boiler.toml"
    file.write_text(BOILER)
    return file


def test_list_has_those_that_ship_and_the_operators(headrace: Headrace, boiler: Path) -> None:
    """With the folder that the settings name."""
    config = boiler.parent / "headrace.conf"
    config.write_text(f'device_types = "{boiler.parent}"')

    listed = orjson.loads(headrace("types", "list", "--json", "--config", config).stdout)["types"]
    shown = headrace("types", "list", "--config", config).stdout.decode()

    assert [row["name"] for row in listed][-1] == "boiler"
    assert listed[-1] == {
        **{"name": "boiler", "version": 1, "fields": 5, "derived": 2, "cadence": 60.0},
        "description": "Boiler of a house.",
    }
    assert "meter" in shown


def test_show_has_all_fields(headrace: Headrace, boiler: Path) -> None:
    """Of a device type by name, or of a file."""
    assert b"| `energy` | kWh |" in headrace("types", "show", "meter").stdout
    assert orjson.loads(headrace("types", "show", boiler, "--json").stdout)["fields"]["gas"]["kind"] == "counter"
    assert "there is no device type metre; did you mean 'meter'?" in headrace("types", "show", "metre", code=2).stderr


def test_check_runs_the_examples(headrace: Headrace, boiler: Path) -> None:
    """The example of the guide is right."""
    done = headrace("types", "check", boiler)

    assert done.stdout.decode() == "1 of 1 files are right, 2 examples give what they say\n"


def test_check_says_every_mistake_of_every_file(headrace: Headrace, boiler: Path) -> None:
    """Of a folder too; what is right is counted."""
    (boiler.parent / "a.yaml").write_text("name: a\nfields: {x: {unit: degG}}\n")
    (boiler.parent / "b.toml").write_text(BOILER.replace("result = 10", "result = 11").replace('"boiler"', '"b"'))

    found = orjson.loads(headrace("types", "check", boiler.parent, "--json", code=1).stdout)

    assert (found["files"], found["types"], found["examples"]) == (3, ["boiler"], 2)
    assert [mistake.removeprefix(f"{boiler.parent}/") for mistake in found["mistakes"]] == [
        "a.yaml: fields.x.unit: unit 'degG' is unknown; did you mean 'degF'? a unit of its own belongs into own_units",
        "b.toml: derived.excess: an example should give 11 but gives 10",
    ]
    assert "1 of 3 files are right" in headrace("types", "check", boiler.parent, code=1).stdout.decode()


def test_compare_exits_with_1_if_not_compatible(headrace: Headrace, boiler: Path) -> None:
    """So that CI stops; what changed is said either way."""
    wider, narrower = boiler.parent / "wider.toml", boiler.parent / "narrower.toml"
    wider.write_text(BOILER.replace("version = 1", "version = 2").replace("max = 150", "max = 200"))
    narrower.write_text(BOILER.replace("max = 150", "max = 140"))

    done = headrace("types", "compare", boiler, narrower, "--json", code=1)

    assert orjson.loads(done.stdout) == {
        "compatible": False,
        "changes": [
            {"place": "fields.temperature.max", "what": "was 150.0, is 140.0", "compatible": False},
            {"place": "version", "what": "must be greater than 1, and is 1", "compatible": False},
        ],
    }
    assert b"not compatible: fields.temperature.max" in headrace("types", "compare", boiler, narrower, code=1).stdout
    assert headrace("types", "compare", boiler, wider).stdout.endswith(b"is 200.0\ncompatible\n")
    assert headrace("types", "compare", boiler, boiler).stdout == b"nothing changed\n"


def test_schema_is_of_files_or_of_payloads(headrace: Headrace, boiler: Path) -> None:
    """Both as JSON."""
    assert "FieldSpec" in orjson.loads(headrace("types", "schema").stdout)["$defs"]
    assert orjson.loads(headrace("types", "schema", boiler, "--json").stdout)["title"] == "payload of boiler, version 1"


def test_a_file_with_mistakes_is_not_compared(headrace: Headrace, boiler: Path) -> None:
    """Its mistakes are said."""
    boiler.write_text("name = 1")

    assert "boiler.toml: name: Input should be a valid string" in headrace("types", "show", boiler, code=2).stderr


def test_a_folder_without_files_is_a_mistake(headrace: Headrace, tmp_path: Path) -> None:
    """A mistyped folder in CI must not be green for ever."""
    done = headrace("types", "check", tmp_path, code=2)
    assert "no device type files in it" in done.stderr
