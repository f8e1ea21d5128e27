"""The replay source: every row once, by event time, across stops."""

import asyncio
import gzip
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.connectors.file_delivery import IntakeDelivery, PublishDelivery, Rows
from headrace.connectors.files import FileSource
from headrace.connectors.mapping import Mapping
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition
from headrace.schemas import topics

HOUR_MS = 3_600_000
START_MS = 1_362_067_200_000  # 2013-03-01 00:00 in Beijing
COLUMNS = "No,year,month,day,hour,PM2.5,PM10,SO2,NO2,CO,O3,TEMP,PRES,DEWP,RAIN,wd,WSPM,station"


class Recorder(IntakeDelivery):
    """Appends to the log, remembers what was delivered, and stops the replay after some batches."""

    def __init__(self, intake: Intake, stop: asyncio.Event, batches: int = 1 << 30) -> None:
        super().__init__(intake)
        self.rows: list[tuple[bytes, bytes, int, bytes]] = []
        self._stop = stop
        self._batches = batches

    async def deliver(self, rows: Rows) -> None:
        await super().deliver(rows)
        self.rows += zip(rows.device_ids, rows.payloads, rows.timestamps, rows.sources, strict=True)
        self._batches -= 1
        if not self._batches:
            self._stop.set()


class NoWaitClock(ManualClock):
    """A clock on which waiting takes no real time: `sleep` moves `monotonic`."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.seconds = 0.0
        self._on_sleep = on_sleep

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, delay: float) -> None:
        self.seconds += delay
        self._on_sleep()


@pytest.fixture
async def log() -> AsyncIterator[EmbeddedLog]:
    """An empty log in memory."""
    log = await new_log()
    yield log
    await log.close()


async def new_log() -> EmbeddedLog:
    log = EmbeddedLog(MEMORY)
    await log.create_topics(Intake.topic_specs(2))
    return log


async def replay(
    log: EmbeddedLog, path: Path, mapping: Mapping | None = None, *, batches: int = 1 << 30, **options: Any
) -> tuple[Recorder, FileSource]:
    """Run a replay on `log` until its end, or until that many batches were delivered."""
    clock = options.pop("clock", None) or ManualClock()
    intake, stop = Intake(log, clock), asyncio.Event()
    recorder = Recorder(intake, stop, batches)
    options.setdefault("latest_ms", 1_800_000_000_000)
    source = FileSource(path, mapping, intake, clock, deliver=recorder, **options)
    await source.run(stop)
    return recorder, source


def simple_mapping(**changes: Any) -> Mapping:
    """Columns device, t (ms) and any measures."""
    fields = {"name": "simple", "device_type": "tilt", "device": {"column": "device"}, "time": {"column": "t"}}
    return Mapping.model_validate(fields | changes)


def station(name: str, hours: range) -> bytes:
    """A station of the Beijing data set, with a missing value in every row."""
    rows = [
        f'{i},2013,3,{1 + h // 24},{h % 24},NA,{h},7,8,300,9,-2.5,1020.8,-19,0,"N",4.4,"{name}"'
        for i, h in enumerate(hours)
    ]
    return "\n".join([COLUMNS, *rows, ""]).encode()


async def test_beijing_rows_become_payloads_by_event_time(tmp_path: Path, log: EmbeddedLog) -> None:
    """A folder of gzipped stations is merged by Beijing time; NA is absent; append time is event time."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(station("Changping", range(0, 3))))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(station("Dongsi", range(1, 4))))
    (tmp_path / "README.md").write_text("not data")

    recorder, source = await replay(log, tmp_path)

    assert [(row[0], (row[2] - START_MS) // HOUR_MS, row[3]) for row in recorder.rows] == [
        (b"Changping", 0, b"a.csv.gz:2"),
        (b"Changping", 1, b"a.csv.gz:3"),
        (b"Dongsi", 1, b"b.csv.gz:2"),
        (b"Changping", 2, b"a.csv.gz:4"),
        (b"Dongsi", 2, b"b.csv.gz:3"),
        (b"Dongsi", 3, b"b.csv.gz:4"),
    ]
    assert orjson.loads(recorder.rows[0][1]) == {
        "timestamp": START_MS,
        **{"pm10": 0, "so2": 7, "no2": 8, "co": 300, "o3": 9, "temperature": -2.5, "pressure": 1020.8},
        **{"dew_point": -19, "rain": 0, "wind_speed": 4.4, "wind_direction": "N"},
    }
    assert source.mapping.device_type == "beijing-air"
    progress = source.progress()
    assert progress.finished
    assert (progress.rows_done, progress.rows_total, progress.unmapped, progress.disordered) == (6, 6, 0, 0)
    assert (progress.bytes_done, progress.event_time_ms) == (progress.bytes_total, START_MS + 3 * HOUR_MS)


async def test_rows_are_in_the_log_with_their_headers(tmp_path: Path, log: EmbeddedLog) -> None:
    """Without another delivery the rows are appended under the profile "replay"."""
    file = tmp_path / "day.csv"
    file.write_text("device,t,x\nd1,1700000000000,1\n")
    clock = ManualClock()

    await FileSource(file, simple_mapping(), Intake(log, clock), clock).run(asyncio.Event())

    found = [await log.read(TopicPartition(topics.RAW, partition), 0, 10) for partition in (0, 1)]
    records = [record for fetched in found if fetched for record in fetched.records]
    assert [(record.key, record.value, record.timestamp) for record in records] == [
        (b"d1", b'{"timestamp":1700000000000,"x":1}', 1700000000000)
    ]
    headers = records[0].headers
    assert (headers[topics.PROFILE], headers[topics.DEVICE_TYPE], headers[topics.SOURCE]) == (
        *(b"replay", b"tilt", b"day.csv:2"),
    )
    assert clock.now_ms() == 1700000000000


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.ndjson", "d.jsonl.gz", "d.parquet"])
async def test_every_format_gives_the_same_messages(tmp_path: Path, log: EmbeddedLog, name: str) -> None:
    """The format of a file changes nothing about its messages, and the shipped mapping for payloads is found."""
    table = pl.DataFrame(
        {
            "device_id": ["d1", "d2"],
            "timestamp": ["1700000000000", "2023-11-14T22:13:21Z"],
            "x": [1.5, None],
            "s": ["ok", None],
        }
    )
    if name == "d.parquet":
        table.write_parquet(tmp_path / name)
    else:
        text = table.write_csv() if ".csv" in name else table.write_ndjson()
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    recorder, source = await replay(log, tmp_path / name)

    assert [(row[0], orjson.loads(row[1])) for row in recorder.rows] == [
        (b"d1", {"timestamp": 1700000000000, "x": 1.5, "s": "ok"}),
        (b"d2", {"timestamp": 1700000001000}),
    ]
    assert source.mapping.name == "payload"


async def test_rows_that_cannot_be_mapped_go_through_as_they_are(tmp_path: Path, log: EmbeddedLog) -> None:
    """No row is dropped: a broken one is delivered as its own bytes and does not touch its neighbours."""
    lines = [
        *(b"d1,1700000000000,1", b"d1,never,2", b",1700000001000,3", b"d1,1700000002000", b'd1,1700000002000,"4'),
        *(b"d1,\xff,5", b"d1,1700000003000,12x", b'd1,1700000004000,"a\r\nb"', b"d1,1700000005000,6"),
    ]
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfdevice,t,x\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")

    recorder, source = await replay(log, tmp_path / "x.csv", simple_mapping())

    assert [(row[0], row[1], row[2] - 1700000000000) for row in recorder.rows] == [
        (b"d1", b'{"timestamp":1700000000000,"x":1}', 0),
        (b"d1", b"d1,never,2", 0),
        (b"?", b",1700000001000,3", 0),
        (b"?", b"d1,1700000002000", 0),
        (b"?", b'd1,1700000002000,"4', 0),
        (b"?", b"d1,\xff,5", 0),
        (b"d1", b'{"timestamp":1700000003000,"x":"12x"}', 3000),
        (b"d1", b'{"timestamp":1700000004000,"x":"a\\r\\nb"}', 4000),
        (b"d1", b'{"timestamp":1700000005000,"x":6}', 5000),
    ]
    assert source.progress().unmapped == 5


async def test_ndjson_lines_that_cannot_be_mapped_go_through_as_they_are(tmp_path: Path, log: EmbeddedLog) -> None:
    """Lines that are no object, or lack device or time, are delivered as their own bytes."""
    lines = [
        b"[" * 2000,
        b"7",
        b'{"device":"d1"}',
        b'{"device":"d1","t":1700000000000,"x":[1],"s":"NA"}',
        b'{"t":1, "device":true}',
    ]
    (tmp_path / "x.ndjson").write_bytes(b"\r\n\n".join(lines))

    recorder, _ = await replay(log, tmp_path / "x.ndjson", simple_mapping(na=["NA"]))

    assert [row[1] for row in recorder.rows] == [
        *(lines[0], lines[1], lines[2]),
        b'{"timestamp":1700000000000,"x":[1]}',
        lines[4],
    ]
    assert [row[0] for row in recorder.rows] == [b"?", b"?", b"d1", b"d1", b"?"]
    assert [row[3] for row in recorder.rows][-1] == b"x.ndjson:9"


async def test_one_wrong_year_moves_neither_clock_nor_merge(tmp_path: Path, log: EmbeddedLog) -> None:
    """A row of the year 9999 is delivered in its place, at the time of the row before it."""
    (tmp_path / "a.csv").write_text("device,t,x\na,1700000000000,1\na,253402300000000,2\na,0,3\na,1700000002000,4\n")
    (tmp_path / "b.csv").write_text("device,t,x\nb,1700000001000,1\n")

    recorder, _ = await replay(log, tmp_path, simple_mapping())

    assert [(row[0], row[2] - 1700000000000) for row in recorder.rows] == [
        *((b"a", 0), (b"a", 0), (b"a", 0), (b"b", 1000), (b"a", 2000)),
    ]


async def test_a_file_that_is_not_sorted_is_delivered_and_counted(tmp_path: Path, log: EmbeddedLog) -> None:
    """Rows out of order keep their place in the file, and progress says how many there are."""
    (tmp_path / "a.csv").write_text("device,t\na,1700000002000\na,1700000001000\na,1700000003000\n")

    recorder, source = await replay(log, tmp_path / "a.csv", simple_mapping())

    assert [(orjson.loads(row[1])["timestamp"], row[2]) for row in recorder.rows] == [
        (1700000002000, 1700000002000),
        (1700000001000, 1700000002000),
        (1700000003000, 1700000003000),
    ]
    assert source.progress().disordered == 1


ROWS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", '"q,\n"', ""])).map(
            lambda row: f"{row[1]},{1700000000000 + row[0] * 1000},7"
        ),
        st.sampled_from(["broken", 'a,"1', "a,never,1", ""]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(
    files=st.lists(ROWS, min_size=1, max_size=4),
    zipped=st.booleans(),
    batch_rows=st.integers(1, 5),
    stops=st.lists(st.integers(1, 4), max_size=4),
)
def test_stopping_anywhere_changes_nothing(
    files: list[list[str]], zipped: bool, batch_rows: int, stops: list[int]
) -> None:
    """Rows, order, times and totals are those of an uninterrupted replay, wherever it was stopped."""

    async def compare(folder: Path) -> None:
        whole, reference = await new_log(), await new_log()
        expected, first = await replay(reference, folder, simple_mapping())

        got: list[tuple[bytes, bytes, int, bytes]] = []
        for batches in [*stops, 1 << 30]:
            recorder, source = await replay(whole, folder, simple_mapping(), batches=batches, batch_rows=batch_rows)
            got += recorder.rows

        assert got == expected.rows
        assert source.progress() == first.progress()
        await whole.close()
        await reference.close()

    with tempfile.TemporaryDirectory() as folder:
        for index, rows in enumerate(files):
            data = "\n".join(["device,t,x", *rows]).encode()
            name = f"{index}.csv.gz" if zipped else f"{index}.csv"
            (Path(folder) / name).write_bytes(gzip.compress(data) if zipped else data)
        asyncio.run(compare(Path(folder)))


async def test_chunk_boundaries_do_not_show(tmp_path: Path, log: EmbeddedLog) -> None:
    """Files much longer than a chunk are merged as if they were read whole."""
    rows = [(1700000000000 + i * 1000 // 3, f"d{i % 2}", i) for i in range(30_000)]
    for name in ("d0", "d1"):
        lines = [f"{device},{time},{i}" for time, device, i in rows if device == name]
        (tmp_path / f"{name}.csv").write_text("\n".join(["device,t,x", *lines]))

    recorder, _ = await replay(log, tmp_path, simple_mapping())

    assert [(row[2], row[0].decode(), orjson.loads(row[1])["x"]) for row in recorder.rows] == sorted(rows)


async def test_another_data_set_or_mapping_on_the_same_log_is_refused(tmp_path: Path, log: EmbeddedLog) -> None:
    """A changed file or mapping says to take another data folder."""
    file = tmp_path / "a.csv"
    file.write_text("device,t,x\na,1700000000000,1\na,1700000000001,1\n")
    await replay(log, file, simple_mapping(), batches=1, batch_rows=1)

    with pytest.raises(ConfigError, match=r"another mapping.*--data PATH"):
        await replay(log, file, simple_mapping(device_type="x"))
    file.write_text("device,t,x\na,1700000000000,1\n")
    with pytest.raises(ConfigError, match=r"other files.*--data PATH"):
        await replay(log, file, simple_mapping())


async def test_speed_is_kept_on_the_clock(tmp_path: Path, log: EmbeddedLog) -> None:
    """At speed 60 an hour of data takes a minute, and the clock moves between the rows too."""
    (tmp_path / "a.csv").write_text("device,t\na,1700000000000\na,1700003600000\n")
    seen: list[int] = []
    clock = NoWaitClock(lambda: seen.append(clock.now_ms() - 1700000000000))

    recorder, _ = await replay(log, tmp_path / "a.csv", simple_mapping(), speed=60, clock=clock)

    assert [row[2] for row in recorder.rows] == [1700000000000, 1700003600000]
    assert 60 <= clock.seconds < 60.2
    assert seen == sorted(seen)
    assert len({time // 600_000 for time in seen}) >= 6


async def test_a_stop_ends_a_paced_replay_at_once(tmp_path: Path, log: EmbeddedLog) -> None:
    """A stop is noticed while waiting for the next row."""
    (tmp_path / "a.csv").write_text("device,t\na,1700000000000\na,1800000000000\n")
    stop = asyncio.Event()
    clock = NoWaitClock(stop.set)
    intake = Intake(log, clock)
    source = FileSource(tmp_path / "a.csv", simple_mapping(), intake, clock, 1.0, latest_ms=1800000000000)

    await source.run(stop)

    assert (source.progress().rows_done, source.progress().finished) == (1, False)


async def test_a_stop_ends_waiting_for_room(tmp_path: Path, log: EmbeddedLog) -> None:
    """A replay held back by the pipeline can be stopped; nothing was delivered."""
    (tmp_path / "a.csv").write_text("device,t\na,1700000000000\n")
    stop, clock = asyncio.Event(), ManualClock()

    async def never() -> None:
        stop.set()
        await asyncio.Event().wait()

    source = FileSource(tmp_path / "a.csv", simple_mapping(), Intake(log, clock), clock, wait_capacity=never)
    await source.run(stop)

    assert source.progress().rows_done == 0


async def test_rows_can_be_published_instead(tmp_path: Path, log: EmbeddedLog) -> None:
    """By MQTT each row goes to its device's topic, and the position moves only after the drain."""
    (tmp_path / "a.csv").write_text("device,t\na,1700000000000\nb,1700000001000\n")
    clock, sent = ManualClock(), list[tuple[str, bytes]]()
    intake = Intake(log, clock)

    async def publish(topic: str, payload: bytes) -> None:
        sent.append((topic, payload))

    async def drain() -> None:
        assert len(sent) == 2
        assert await intake.position("replay") is None

    source = FileSource(
        tmp_path / "a.csv", simple_mapping(), intake, clock, deliver=PublishDelivery(publish, drain, intake)
    )
    await source.run(asyncio.Event())

    assert sent[1] == ("dt/devices/b/telemetry", b'{"timestamp":1700000001000}')
    assert await intake.position("replay") is not None


async def test_a_device_that_no_topic_can_name_is_refused(tmp_path: Path, log: EmbeddedLog) -> None:
    """Such a row would get lost on the way; the error names the row."""
    (tmp_path / "a.csv").write_text("device,t\na/b,1700000000000\n")
    clock = ManualClock()
    intake = Intake(log, clock)

    async def publish(topic: str, payload: bytes) -> None:
        raise AssertionError(topic)

    async def drain() -> None: ...

    source = FileSource(tmp_path, simple_mapping(), intake, clock, deliver=PublishDelivery(publish, drain, intake))
    with pytest.raises(ConfigError, match=r"a.csv:2: device id 'a/b'"):
        await source.run(asyncio.Event())


async def test_rows_total_is_exact_for_parquet_and_estimated_for_text(tmp_path: Path, log: EmbeddedLog) -> None:
    """Half-way through, progress knows the rows of a Parquet file and comes close for text."""
    table = pl.DataFrame({"device": ["a"] * 50_000, "t": [1700000000000 + i for i in range(50_000)]})
    table.write_parquet(tmp_path / "a.parquet")
    table.write_csv(tmp_path / "a.csv")

    _, exact = await replay(log, tmp_path / "a.parquet", simple_mapping(), batches=1)
    other = await new_log()
    _, estimated = await replay(other, tmp_path / "a.csv", simple_mapping(), batches=1)
    await other.close()

    assert (exact.progress().rows_total, exact.progress().rows_total_exact) == (50_000, True)
    assert estimated.progress().rows_total == pytest.approx(50_000, rel=0.05)
    assert not estimated.progress().rows_total_exact


async def test_a_damaged_file_is_a_clear_error(tmp_path: Path, log: EmbeddedLog) -> None:
    """A gzip file that breaks off, or is none, names itself and the place."""
    data = gzip.compress(
        "\n".join(["device,t", *(f"{i * 7919 % 10007},{1700000000000 + i}" for i in range(20_000))]).encode()
    )
    (tmp_path / "cut.csv.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "no.csv.gz").write_bytes(b"plain text")

    with pytest.raises(ConfigError, match=r"no.csv.gz: damaged or unreadable"):
        await replay(log, tmp_path / "no.csv.gz", simple_mapping())
    with pytest.raises(ConfigError, match=r"cut.csv.gz: damaged or unreadable after byte"):
        await replay(log, tmp_path / "cut.csv.gz", simple_mapping())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.csv", "b.ndjson"], r"mixes formats.*a.csv \(.csv\), b.ndjson \(.ndjson\)"),
        (["a.csv", "a.csv.gz"], "mixes formats"),
        (["README"], "holds no data file"),
        ([], "holds no data file"),
    ],
)
def test_a_folder_without_one_data_set_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """Mixed or missing formats are named before anything runs."""
    for name in names:
        (tmp_path / name).touch()

    with pytest.raises(ConfigError, match=message):
        FileSource(tmp_path, None, no_intake(), ManualClock())


def test_wrong_paths_and_speeds_are_refused(tmp_path: Path) -> None:
    """What cannot be replayed is said at construction."""
    (tmp_path / "empty.csv").touch()
    (tmp_path / "x.txt").touch()

    def make(name: str, speed: float | None = None) -> FileSource:
        return FileSource(tmp_path / name, None, no_intake(), ManualClock(), speed)

    with pytest.raises(ConfigError, match="no such file or folder"):
        make("missing.csv")
    with pytest.raises(ConfigError, match="not a data file"):
        make("x.txt")
    with pytest.raises(ConfigError, match=r"empty.csv: empty"):
        make("empty.csv")
    with pytest.raises(ConfigError, match="speed 0 is not above 0"):
        make("empty.csv", 0)


def no_intake() -> Any:
    """For a source that is never run."""
    return None
