"""The mapping: from the columns of a data set to device, time and payload."""

from pathlib import Path

import orjson
import polars as pl
import pytest

from headrace.connectors.event_times import parts_parser, time_parser
from headrace.connectors.file_open import open_files
from headrace.connectors.json_columns import encode_columns
from headrace.connectors.mapping import Mapping, choose_mapping, load_mapping, shipped_mappings
from headrace.engine.errors import ConfigError

BEIJING = [
    "No",
    "year",
    "month",
    "day",
    "hour",
    "PM2.5",
    "PM10",
    "SO2",
    "NO2",
    "CO",
    "O3",
    "TEMP",
    "PRES",
    "DEWP",
    "RAIN",
    "wd",
    "WSPM",
    "station",
]


def test_shipped_mappings_are_found_by_columns() -> None:
    """The most specific shipped mapping whose columns are all there is taken."""
    assert [mapping.name for mapping in shipped_mappings()] == ["beijing-air", "payload"]
    assert choose_mapping(BEIJING).name == "beijing-air"
    assert choose_mapping(["timestamp", "x", "device_id"]).name == "payload"


def test_unknown_columns_say_what_to_do() -> None:
    """Without a fitting mapping the error names the columns and the option."""
    with pytest.raises(ConfigError, match=r"columns a, b: write a mapping file and name it with --mapping FILE"):
        choose_mapping(["a", "b"])


def test_a_mapping_file_is_loaded_by_path_and_a_shipped_one_by_name(tmp_path: Path) -> None:
    """`load_mapping` takes a file or a name, and says which names there are."""
    file = tmp_path / "mine.toml"
    file.write_text('name="mine"\ndevice_type="tilt"\ndevice={file_stem=true}\ntime={column="t", format="s"}\n')

    assert load_mapping(str(file)).name == "mine"
    assert load_mapping("beijing-air").device_type == "beijing-air"
    with pytest.raises(ConfigError, match="neither shipped \\(beijing-air, payload\\)"):
        load_mapping("beijing")


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    """All mistakes of a mapping come in one error."""
    file = tmp_path / "wrong.toml"
    file.write_text(
        'device_type = "x"\ncolour = "red"\nseparator = "ab"\n'
        '[device]\ncolumn = "a"\nconstant = "b"\n'
        '[time]\ncolumns = {year = "y"}\nzone = "Mars/Olympus"\nformat = "fortnights"\n'
        '[measures]\na = "timestamp"\nb = "c"\n[text]\nd = "c"\n'
    )

    with pytest.raises(ConfigError) as caught:
        load_mapping(str(file))

    text = "\n".join(caught.value.mistakes)
    assert len(caught.value.mistakes) == 7
    for part in (
        "name: Field required",
        "colour: Extra",
        "separator",
        "exactly one of column",
        "Mars",
        "fortnights",
        "c, time",
    ):
        assert part in text


def test_missing_columns_are_listed_for_every_file(tmp_path: Path) -> None:
    """A file that lacks columns is named with each of them, before anything runs."""
    (tmp_path / "a.csv").write_text("t,v,v\n")
    (tmp_path / "b.csv").write_text("v\n")
    mapping = Mapping.model_validate(
        {"name": "m", "device_type": "x", "device": {"column": "d"}, "time": {"column": "t"}, "measures": {"v": "v"}}
    )

    with pytest.raises(ConfigError) as caught:
        open_files([tmp_path / "a.csv", tmp_path / "b.csv"], mapping)

    assert [mistake.replace(str(tmp_path), "") for mistake in caught.value.mistakes] == [
        "/a.csv: has no column 'd'",
        "/a.csv: has the column 'v' twice",
        "/b.csv: has no column 'd'",
        "/b.csv: has no column 't'",
        "the mapping is 'm'; name another one with --mapping NAME|FILE",
    ]


@pytest.mark.parametrize(
    ("format", "zone", "value", "expected"),
    [
        ("s", "UTC", "1362067200", 1362067200000),
        ("s", "UTC", "1362067200.123", 1362067200123),
        ("ms", "UTC", 1362067200000, 1362067200000),
        ("us", "UTC", "1362067200000999", 1362067200000),
        ("ns", "UTC", "1362067200000999999", 1362067200000),
        ("iso8601", "+08:00", "2013-03-01 00:00:00", 1362067200000),
        ("iso8601", "+08:00", "2013-03-01T00:00:00Z", 1362096000000),
        ("iso8601", "America/New_York", "2021-07-01T00:00", 1625112000000),
        ("%d.%m.%Y %H:%M", "Europe/Berlin", "01.03.2013 01:00", 1362096000000),
        ("auto", "UTC", "1362067200000", 1362067200000),
        ("auto", "UTC", "2013-03-01", 1362096000000),
        ("ms", "UTC", "12x", None),
        ("ms", "UTC", "NaN", None),
        ("s", "UTC", "9" * 400, None),
        ("s", "UTC", "9" * 5000, None),
        ("auto", "UTC", True, None),
        ("auto", "UTC", None, None),
        ("iso8601", "UTC", "2013-02-30", None),
        ("iso8601", "UTC", "NA", None),
    ],
)
def test_times_are_read_in_every_format(format: str, zone: str, value: object, expected: int | None) -> None:
    """A time becomes exact ms since 1970 UTC, and what is no time becomes None."""
    assert time_parser(format, zone)(value) == expected


def test_time_of_parts() -> None:
    """Date and time come from their columns; an impossible date is no time."""
    parse = parts_parser(("year", "month", "day", "minute", "second"), "+08:00")

    assert parse(("2013", "03", "01", "5", "1.5")) == 1362067200000 + 301_500
    assert parse(("2013", "2", "30", "0", "0")) is None
    assert parse(("2013", "NA", "1", "0", "0")) is None
    assert parse(("2013", None, "1", "0", "0")) is None
    assert parse(("2013", "1", "1", "0", "nan")) is None


def test_hours_that_clocks_skip_or_repeat_use_the_offset_before() -> None:
    """At a change of the clocks a time keeps the offset from before it, so no row is refused."""
    parse = time_parser("iso8601", "Europe/Berlin")

    assert parse("2021-03-28T02:30") == parse("2021-03-28T01:30:00+00:00")
    assert parse("2021-10-31T02:30") == parse("2021-10-31T00:30:00+00:00")


def test_csv_values_become_json() -> None:
    """Numbers stay digit for digit, missing ones vanish, other values and text columns become strings."""
    texts = ["5", "-0.10", "1E5", "NA", "", " NA ", "+.5", "007", "12x", "inf", "NaN", "1_0", 'a"\\\n\x01é']

    encoded = encode_columns(pl.DataFrame({"m": texts, "t": texts}), ["NA", ""], ["t"])

    assert encoded["m"].to_list()[:12] == [
        *("5", "-0.10", "1E5", None, None, None, "0.5", "7.0", '"12x"', '"inf"', '"NaN"', '"1_0"'),
    ]
    assert [None if text is None else orjson.loads(text) for text in encoded["t"]] == [
        None if text in ("NA", "") else text for text in texts
    ]


def test_typed_values_become_json() -> None:
    """Parquet columns keep their type; NaN is no value, infinity is text for ingest to refuse."""
    table = pl.DataFrame(
        {"f": [0.1, float("nan"), float("inf")], "i": [1, -999, None], "b": [True, False, None], "l": [[1], None, []]}
    )

    encoded = encode_columns(table, ["-999"])

    assert encoded.rows() == [("0.1", "1", "true", "[1]"), (None, None, "false", None), ('"inf"', None, None, "[]")]
