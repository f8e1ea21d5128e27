"""Device types: those that ship, those of a folder, and every mistake in one message."""

from pathlib import Path

import numpy as np
import pytest

from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

MISTAKEN = """
name = "Bad Name"
colour = 1
[time]
formats = ["epoch_ms", "epoch_s"]
[fields.temperature]
unit = "degC"
min = 5
max = 1
aliases = { temp = "degG", t2 = "hPa", timestamp = "degC" }
[fields."bad name"]
[fields.Time]
[fields.flag]
type = "boolean"
max = 1
[fields.twice]
[fields.TWICE]
[derived.q]
expression = "temprature + 1"
[derived.z]
unit = "x"
[derived.w]
expression = "foo(temperature)"
[derived.u]
unit = "degG"
expression = "temperature"
constants = { k = "1 hPaa" }
[derived.t]
unit = "W"
expression = "temperature"
[derived.v]
unit = "degC"
constants = { one = "1 degC" }
expression = "temperature + one"
examples = [{ given = { temperature = 1 }, result = 3 }, { given = {}, result = 3 }]
"""


def test_the_shipped_types() -> None:
    """The types that ship load, with the fields of the source documents and of the data sets."""
    types = load_device_types()

    assert set(types) == {"aggregator", "beijing-air", "collector", "environmental", "meter", "tilt"}
    assert types["environmental"].measures == (
        *("temperature", "humidity", "co2", "pm25", "pm10", "noise", "vibration", "power", "battery"),
        "signalStrength",
    )
    assert types["environmental"].units["dew_point"] == "degC"
    assert types["beijing-air"].cadence == 3600
    assert types["beijing-air"].texts == ("wind_direction",)
    assert types["tilt"].fields["tilt_angle"].required
    assert types["meter"].counters == {"energy"}


def test_dew_point_follows_published_values() -> None:
    """The dew point is within 0.1 degC of the Smithsonian-based tables over the range of the formula."""
    expression = load_device_types()["environmental"].expressions["dew_point"]
    columns = {"temperature": np.array([30.0, 20.0, 10.0, 0.0]), "humidity": np.array([70.0, 40.0, 90.0, 50.0])}

    assert expression.evaluate(columns).tolist() == pytest.approx([23.9, 6.0, 8.4, -9.2], abs=0.1)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """All mistakes of all files come in one error, each with its file and place."""
    (tmp_path / "a.toml").write_text(MISTAKEN)
    (tmp_path / "b.toml").write_text("name = ")
    (tmp_path / "c.toml").write_text('name = "empty"')

    with pytest.raises(ConfigError) as raised:
        load_device_types(tmp_path)

    told = [mistake.removeprefix(f"{tmp_path}/") for mistake in raised.value.mistakes]
    expected = [
        "a.toml: name: String should match pattern",
        "a.toml: colour: Extra inputs are not permitted",
        "a.toml: time: formats may have epoch_ms or epoch_s, not both",
        "a.toml: fields.bad name: String should match pattern",
        "a.toml: derived.z.expression: Field required",
        "a.toml: Time: the name is reserved",
        "a.toml: TWICE: the name is already used by twice",
        "a.toml: temperature: the payload name 'timestamp' already feeds time",
        "a.toml: fields.temperature: min 5 is greater than max 1",
        "a.toml: fields.flag: min and max have no meaning for boolean",
        "a.toml: fields.temperature.aliases.temp: cannot convert degG to degC: unit 'degG' is unknown",
        "a.toml: fields.temperature.aliases.t2: cannot convert hPa to degC: pressure is not temperature",
        "a.toml: derived.q: 'temprature' is not a numeric field of the device type; did you mean 'temperature'?",
        "a.toml: derived.w: the functions are abs, exp, log, max, min, sqrt, not foo",
        "a.toml: derived.u.unit: unit 'degG' is unknown; did you mean 'degF'?",
        "a.toml: derived.u.constants.k: unit 'hPaa' is unknown; did you mean 'hPa'?",
        "a.toml: derived.t: the result is in degC, which does not become W",
        "a.toml: derived.v: an example should give 3 but gives 2",
        "a.toml: derived.v: an example does not give temperature",
        "b.toml: Invalid value",
        "c.toml: fields: Field required",
    ]
    for start in expected:
        assert any(mistake.startswith(start) for mistake in told), start
    assert len(told) == len(expected)


def test_a_folder_adds_and_replaces_types(tmp_path: Path) -> None:
    """A type of the operator's stands beside the shipped ones; one of the same name stands for it."""
    (tmp_path / "pump.toml").write_text('name = "pump"\n[fields.flow]\nunit = "m3/h"\n')
    (tmp_path / "tilt.toml").write_text('name = "tilt"\nversion = 7\n[fields.angle]\n')

    types = load_device_types(tmp_path)

    assert types["pump"].units == {"flow": "m3/h"}
    assert types["tilt"].version == 7
    assert "environmental" in types


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[time]\nformats = ["epoch_ms"]\nzone = "UTC"\n', "time: zone is about texts, and formats has no iso8601"),
        ('[time]\nzone = "Mars/Base"\n', "time.zone: there is no time zone 'Mars/Base'"),
        ('[fields.flag]\ntype = "boolean"\nkind = "counter"\n', "fields.flag: a boolean cannot be a counter"),
        ('[metric]\nname = "timestamp"\n', "metric: the payload name 'timestamp' is used twice"),
        ('[metric]\nname = "a"\nvalue = "a"\n', "metric: the payload name 'a' is used twice"),
        ('[metric]\nname = "flow"\n', "metric: the payload name 'flow' is used twice"),
        ('[metric]\nunits = { C = "degC" }\n', "metric.units: no payload field holds the unit"),
        ('[metric]\nunit = "unit"\nunits = { C = "degG" }\n', "metric.units.C: unit 'degG' is unknown"),
        ('[derived.x]\nexpression = "flow"\nconstants = { flow = "1" }\n', "derived.x.constants.flow: the name is"),
        ('[derived.x]\nexpression = "flow"\nconstants = { a = "one" }\n', "derived.x.constants.a: String should match"),
        ("[fields.XMIN]\n", "XMIN: the name is reserved"),
        ("[fields.appended_at]\n", "appended_at: the name is reserved"),
        ('[fields.pellets]\nunit = "scoop"\n', "fields.pellets.unit: unit 'scoop' is unknown"),
        (
            '[fields.a]\nunit = "knurl"\naliases = { b = "m" }\n',
            "fields.a.aliases.b: cannot convert m to knurl: a unit",
        ),
    ],
)
def test_mistakes_of_the_finer_points(tmp_path: Path, text: str, why: str) -> None:
    """Each is told with its place."""
    (tmp_path / "a.toml").write_text('name = "pump"\nown_units = ["knurl"]\n[fields.flow]\n' + text)

    with pytest.raises(ConfigError) as raised:
        load_device_types(tmp_path)

    assert [mistake.removeprefix(f"{tmp_path}/a.toml: ")[: len(why)] for mistake in raised.value.mistakes][:1] == [why]


def test_a_unit_of_the_types_own_is_kept_as_it_is(tmp_path: Path) -> None:
    """In fields, and through derived metrics."""
    (tmp_path / "a.toml").write_text(
        'name = "stove"\nown_units = ["scoop"]\n[fields.rate]\nunit = "scoop"\naliases = { r = "scoop" }\n'
        '[derived.twice]\nunit = "scoop"\nexpression = "rate * 2"\n'
    )

    assert load_device_types(tmp_path)["stove"].units == {"rate": "scoop", "twice": "scoop"}


def test_two_files_with_one_name_are_a_mistake(tmp_path: Path) -> None:
    """Nobody can tell which of them was meant."""
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text('name = "pump"\n[fields.flow]\n')

    with pytest.raises(ConfigError, match=r"two\.toml: one\.toml has a device type 'pump' already"):
        load_device_types(tmp_path)


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """A misspelt path is told, not taken for an empty folder."""
    with pytest.raises(ConfigError, match="no such folder"):
        load_device_types(tmp_path / "nowhere")


def test_the_model_has_a_json_schema() -> None:
    """Editors and documentation get the format from the model itself."""
    schema = DeviceType.model_json_schema()

    assert {"name", "fields", "derived", "time"} <= set(schema["properties"])
