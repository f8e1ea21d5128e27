"""What the window and pane tables keep: memory, changelog, and tables of other configurations."""

import orjson

from headrace.agents.rollup import Rollup
from headrace.agents.three_sigma import ThreeSigma
from headrace.engine.testkit import Changelog, drive, readings_log
from headrace.schemas import topics
from headrace.tables.aggregates import Aggregation

T0 = 1_700_000_000_000 // 3_600_000 * 3_600_000

Row = tuple[str, str, int, dict[str, float]]


def steady(minutes: range, *measures: str) -> list[Row]:
    """Readings of three devices, one a minute."""
    return [
        (device, "env", T0 + minute * 60_000, dict.fromkeys(measures, float(minute)))
        for minute in minutes
        for device in ("a", "b", "c")
    ]


def test_past_windows_leave_memory_and_changelog() -> None:
    """Over hours the table holds the open windows and those within the grace, and no more."""
    rollup, changelog = Rollup(grace=120), Changelog()
    for start in range(0, 600, 10):
        drive(rollup, readings_log(steady(range(start, start + 10), "temperature")))
        changelog.commit(rollup)

    table, *_ = rollup.tables
    windows = table.partition(0).types["env"]
    kept = sum(key.startswith(b"w") for key in changelog.tables["rollup.windows"])
    assert kept == (windows.device >= 0).sum() <= 3 * (1 + 3 + 1)
    assert len(windows.device) < 128


def test_a_new_measure_keeps_the_old_windows() -> None:
    """Entries written before a measure was known are read back, also after a restart."""
    rows = steady(range(3), "temperature") + steady(range(3, 6), "temperature", "co2")
    makers = (lambda: Rollup(("10m",)), lambda: ThreeSigma(pane=60, warm_up=2))
    for make in makers:
        whole = drive(make(), readings_log(rows))

        assert drive(make(), readings_log(rows), batch_sizes=[9, 1, 1], restart=make) == whole


def test_other_parameters_read_an_old_changelog() -> None:
    """Sizes or panes that are configured no more are left out; the rest goes on."""
    rollup, detector, changelog = Rollup(("1m", "10m")), ThreeSigma(pane=60, panes=20), Changelog()
    for operator in (rollup, detector):
        drive(operator, readings_log(steady(range(15), "temperature")))
        changelog.commit(operator)

    fewer, shorter = Rollup(("10m",)), ThreeSigma(pane=60, panes=5)
    changelog.restore(fewer)
    changelog.restore(shorter)

    assert set(fewer.tables[0].partition(0).types["env"].series.tolist()) == {0}
    assert (shorter.tables[0].partition(0).types["env"].numbers[:3] > 0).sum() == 3 * 5


def test_forgotten_partitions_are_gone() -> None:
    """A partition that went to another worker leaves nothing behind."""
    for operator in (Rollup(), ThreeSigma()):
        drive(operator, readings_log(steady(range(3), "temperature")))

        for table in operator.tables:
            table.forget(0)

        assert [table.changes(0) for table in operator.tables] == [{}]


def test_first_version_is_migrated() -> None:
    """Entries without kind of window and layout become those of today."""
    rollup, changelog = Rollup(("1m", "10m")), Changelog()
    drive(rollup, readings_log(steady(range(15), "temperature", "co2")))
    changelog.commit(rollup)
    entries = changelog.tables["rollup.windows"]

    def first(key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Size and start at the end of the key, three numbers before the cells."""
        return (key[:-16] + key[-8:], value[:24] + value[32:]) if key.startswith(b"w") else (key, value)

    old = dict(first(key, value) for key, value in entries.items())

    assert rollup.tables[0].migrate(1, old) == entries


def test_other_aggregates_go_on_with_old_windows() -> None:
    """Windows that began without variance and percentiles have none; those that begin later do."""
    before, after = Rollup(("10m",)), Rollup(("10m",), aggregation=Aggregation(True, (50,)))
    changelog = Changelog()
    drive(before, readings_log(steady(range(5), "temperature")))
    changelog.commit(before)
    changelog.restore(after)

    sent = drive(after, readings_log(steady(range(5, 21), "temperature"))).sent[topics.ROLLUPS]

    cells = [orjson.loads(record.value or b"")["measures"]["temperature"] for record in sent]
    assert [(cell["count"], "variance" in cell, "percentiles" in cell) for cell in cells[::3]] == [
        (10, False, False),
        (10, True, True),
    ]
