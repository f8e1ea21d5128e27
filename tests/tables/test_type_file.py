"""Device type files: TOML and YAML."""

from pathlib import Path

import pytest

from headrace.tables.device_types import load_device_types
from headrace.tables.type_file import read_type_file

PUMP = """
$schema: https://example.org/device-type.schema.json
name: pump
version: 2
fields:
  speed: {unit: m/s, min: 0, max: 1e3, aliases: {kmh: km/h}}
  total: {unit: L, kind: counter, nullable: false, cadence: 60}
  running: {type: boolean, required: true}
"""


def test_yaml_says_what_toml_says(tmp_path: Path) -> None:
    """The same device type, with numbers and booleans as they are meant."""
    (tmp_path / "pump.yaml").write_text(PUMP)

    pump = load_device_types(tmp_path)["pump"]

    assert (pump.fields["speed"].max, pump.fields["running"].required) == (1000.0, True)
    assert pump.counters == {"total"}
    assert pump.cadences == {"total": 60.0}
    assert not pump.fields["total"].nullable


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: no", "no is a boolean in YAML: write true or false, or put it in quotes"),
        ("fields: {on: {}}", "on is a boolean in YAML"),
        ("name: 2026-01-01", "2026-01-01 is a date in YAML: put it in quotes"),
        ("min: 1:30", "1:30 is no plain number: write it in decimal digits, or put it in quotes"),
        ("min: 010", "010 is no plain number"),
        ("a: 1\na: 2", "a is there twice"),
        ("- a", "the file holds no table"),
        ("", "the file holds no table"),
        ("a: [1", "expected"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_traps_of_yaml_are_refused(tmp_path: Path, text: str, why: str) -> None:
    """What YAML would read as something else than it looks like, and what would go unseen."""
    (tmp_path / "a.yml").write_text(text)

    with pytest.raises(ValueError, match=r"\w") as raised:
        read_type_file(tmp_path / "a.yml")

    assert why in str(raised.value)
    assert text[:1] in "[-" or "line" in str(raised.value) or not text or len(text) > 100
