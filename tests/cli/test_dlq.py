"""`headrace dlq` as a user meets it, on data folders that a real pipeline made."""

import asyncio
import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from headrace.cli.opened_log import opened_log
from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.connectors.routed_intake import RoutedIntake
from headrace.connectors.topic_profile import SHIPPED
from headrace.engine.clock import ManualClock
from headrace.engine.dead_letters import dead_letter_records
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.ledger import Ledger
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.redrive import REDRIVES
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import load_rules
from tests.cli.conftest import Done, Headrace

NOW = 1_750_000_000_000
TIME = "2025-06-15T15:06:40"
TYPES = Path(__file__).parents[2] / "headrace" / "schemas" / "types"


def lines(done: Done) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


async def make_letters(folder: Path, letters: Sequence[tuple[bytes, int, bytes, str, str]]) -> None:
    """A log with dead letters: device, append time (ms), payload, reason and agent."""
    log = EmbeddedLog(folder)
    await log.create_topics([TopicSpec(name, 2) for name in (topics.RAW, topics.READINGS, topics.DEAD_LETTERS)])
    for offset, (device, time, payload, reason, agent) in enumerate(letters):
        refused = Records([device], [payload], [time], {topics.MESSAGE_ID: b"m-%d" % offset})
        topic = topics.RAW if agent == "ingest" else topics.READINGS
        send = dead_letter_records(topic, 0, [offset], refused, [reason], agent, counted=True)
        await log.commit(Transaction([Append(TopicPartition(topics.DEAD_LETTERS, 0), send.records, send.tallies)]))
    await log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with three letters, all of one partition."""
    letters = [
        (b"cellar", NOW, b'{"temp": 999}', "temperature is 999, greater than 85 degC", "ingest"),
        (b"attic", NOW + 2000, b"\xff\x00raw", "payload is not UTF-8: invalid start byte at byte 0", "ingest"),
        (b"cellar", NOW + 1000, b'{"temp": 1000}', "temperature is 1000, greater than 85 degC", "rollup"),
    ]
    asyncio.run(make_letters(tmp_path / "data", letters))
    return tmp_path / "data"


# -- list


def test_list_ends_with_the_newest(headrace: Headrace, folder: Path) -> None:
    """A line per letter, by append time: id, time, agent, device, origin, reason."""
    rows = headrace("dlq", "list", "--data", folder).stdout.decode().splitlines()

    assert [row.split()[0] for row in rows] == ["id", "0-0", "0-2", "0-1"]
    assert rows[1].split(maxsplit=5) == [
        "0-0", f"{TIME}.000Z", "ingest", "cellar", "telemetry.raw/0@0", "temperature is 999, greater than 85 degC",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--agent", "rollup"], ["0-2"]),
        (["--reason", "not utf"], ["0-1"]),
        (["--device", "cellar", "--limit", "1"], ["0-2"]),
        (["--since", f"{TIME}.001Z"], ["0-2", "0-1"]),
        (["--until", f"{TIME}.001+00:00"], ["0-0"]),
        (["--since", "1h"], []),
    ],
    ids=lambda value: value[0] if value else "none",
)
def test_list_chooses(headrace: Headrace, folder: Path, options: list[str], ids: list[str]) -> None:
    """By agent, part of the reason, device and time."""
    found = lines(headrace("dlq", "list", "--data", folder, "--json", *options))

    assert [letter["id"] for letter in found] == ids


def test_list_says_what_it_left_out(headrace: Headrace, folder: Path) -> None:
    """With a limit the newest are shown, and how many there are."""
    done = headrace("dlq", "list", "--data", folder, "--limit", "2")

    assert [row.split()[0] for row in done.stdout.decode().splitlines()] == ["id", "0-2", "0-1"]
    assert "2 of 3" in done.stderr


def test_summary_counts_reasons_that_mean_the_same(headrace: Headrace, folder: Path) -> None:
    """Numbers and quoted texts do not tell reasons apart."""
    asyncio.run(make_letters(folder, [(b"x", NOW, b"", "temperature is -3.5, greater than 85 degC", "ingest")]))

    found = lines(headrace("dlq", "list", "--data", folder, "--summary", "--json"))

    assert [(group["count"], group["agent"], group["reason"]) for group in found] == [
        (2, "ingest", "temperature is …, greater than … degC"),
        (1, "ingest", "payload is not UTF-8: invalid start byte at byte …"),
        (1, "rollup", "temperature is …, greater than … degC"),
    ]
    assert b"greater than" in headrace("dlq", "list", "--data", folder, "--summary").stdout


# -- show


def test_show_explains_one_letter(headrace: Headrace, folder: Path) -> None:
    """Headers, and JSON indented."""
    text = headrace("dlq", "show", "0-0", "--data", folder).stdout.decode()

    assert "header message-id" in text
    assert "telemetry.raw/0@0" in text
    assert '{\n  "temp": 999\n}' in text


def test_show_dumps_what_is_no_json(headrace: Headrace, folder: Path) -> None:
    """Bytes in hex, and what of them can be read."""
    assert "ff 00 72 61 77" in (text := headrace("dlq", "show", "0-1", "--data", folder).stdout.decode())
    assert text.splitlines()[-1].endswith("..raw")


def test_show_gives_the_exact_bytes(headrace: Headrace, folder: Path) -> None:
    """Raw on standard output, or in base64."""
    assert headrace("dlq", "show", "0-1", "--data", folder, "--raw").stdout == b"\xff\x00raw"

    (letter,) = lines(headrace("dlq", "show", "0-1", "--data", folder, "--json"))
    assert base64.b64decode(letter["payload"]["base64"]) == b"\xff\x00raw"
    assert letter["headers"]["message-id"]["text"] == "m-1"
    assert letter["replayed"] is None


def test_terminal_is_not_acted_on(headrace: Headrace, folder: Path) -> None:
    """Escape sequences of a hostile device are shown, not sent."""
    hostile = (b"\x1b[2Jd", NOW, b'{"a": "\x7f\\u001b[2J"}', "because of \x1b]0;owned\x07", "ingest")
    asyncio.run(make_letters(folder, [hostile]))

    listed = headrace("dlq", "list", "--data", folder).stdout
    shown = headrace("dlq", "show", "0-3", "--data", folder).stdout

    assert b"\\x1b[2J" in listed
    assert not {0x1B, 0x07, 0x7F} & {*listed, *shown}


# -- replay


def test_dry_run_says_what_would_be_sent_and_sends_nothing(headrace: Headrace, folder: Path) -> None:
    """How many and where to, the first of them, and which stay and why."""
    done = lines(headrace("dlq", "replay", "--data", folder, "--dry-run", "--json"))[0]

    assert done["to_send"] == {"telemetry.raw": 2}
    assert [letter["id"] for letter in done["first"]] == ["0-0", "0-1"]
    assert done["kept"][0]["count"] == 1
    assert f"headrace replay --agent rollup --from {TIME.replace('40', '41')}.000Z" in done["kept"][0]["advice"]
    assert "2 to send back to telemetry.raw" in headrace("dlq", "replay", "--data", folder, "--dry-run").stdout.decode()
    assert lines(headrace("dlq", "replay", "--data", folder, "--dry-run", "--json"))[0] == done


def test_replay_sends_once(headrace: Headrace, folder: Path) -> None:
    """A second run finds nothing to do; `--again` does it again; `list --state` and `show` know."""
    first, second, third = (
        lines(headrace("dlq", "replay", "--data", folder, "--yes", "--json", *more))[0]
        for more in ([], [], ["--again"])
    )

    assert (first["sent"], first["sent_before"], first["finished"]) == (2, 0, True)
    assert (second["sent"], second["sent_before"]) == (0, 2)
    assert (third["sent"], third["sent_before"]) == (2, 0)
    states = headrace("dlq", "list", "--data", folder, "--state").stdout.decode().splitlines()
    assert "to telemetry.raw/" in states[1]
    assert " no " in states[2]
    assert "2 times" in headrace("dlq", "show", "0-0", "--data", folder).stdout.decode()


def test_replay_of_one_letter(headrace: Headrace, folder: Path) -> None:
    """By id; the others stay for later."""
    assert lines(headrace("dlq", "replay", "0-1", "--data", folder, "--yes", "--json"))[0]["sent"] == 1
    assert lines(headrace("dlq", "replay", "--data", folder, "--dry-run", "--json"))[0]["to_send"] == {
        "telemetry.raw": 1
    }


def test_a_named_letter_that_cannot_go_back_is_a_mistake(headrace: Headrace, folder: Path) -> None:
    """Nothing is sent then, and what to do instead is said."""
    done = headrace("dlq", "replay", "0-0", "0-2", "--data", folder, "--yes", code=2)

    assert "headrace replay --agent rollup" in done.stderr
    assert lines(headrace("dlq", "list", "--data", folder, "--json", "--limit", "1"))[0]["replayed"] is None


@pytest.mark.parametrize(("answer", "sent"), [(b"y\n", True), (b"n\n", False)])
def test_on_a_terminal_it_asks(headrace: Headrace, folder: Path, answer: bytes, sent: bool) -> None:
    """After it has said what it would do."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "headrace.cli.main", "dlq", "replay", "--data", str(folder)]
    with subprocess.Popen(command, stdin=its, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, answer)
        stdout, stderr = process.communicate(timeout=300)
    os.close(ours)
    os.close(its)

    assert process.returncode == 0, stderr.decode()
    assert b"2 to send back to telemetry.raw" in stdout
    states = [letter["replayed"] for letter in lines(headrace("dlq", "list", "--data", folder, "--json"))]
    assert [state is not None for state in states] == [sent, False, sent]


async def test_only_one_replays_at_a_time(headrace_process: Headrace, tmp_path: Path) -> None:
    """Two runs beside each other would both send."""
    folder = tmp_path / "data"
    await make_letters(folder, [(b"cellar", NOW, b"{", "broken", "ingest")])

    async with opened_log(Settings(), folder) as opened, opened.turn("dlq-replay", REDRIVES):
        done = await asyncio.to_thread(headrace_process, "dlq", "replay", "--data", folder, "--yes", code=1)

    assert "Wait until that is done" in done.stderr


# -- mistakes


def test_every_mistake_at_once(headrace: Headrace, tmp_path: Path) -> None:
    """Options, ids and folder are all checked before anything starts."""
    done = headrace(
        "dlq", "replay", "0-1", "x", "--since", "soon", "--until", "5 pm", "--data", tmp_path / "no", code=2
    )

    for part in ("do not go together", "--yes", "no folder", "'x'", "'soon'", "'5 pm'"):
        assert sum(part in line for line in done.stderr.splitlines()) == 1, part


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "--data is missing"),
        (["list", "--data", "."], "holds no log"),
        (["list", "--since", "1h", "--until", "2h"], "is not before"),
        (["show", "1-1", "--raw", "--json"], "do not go together"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_say_what_to_do(headrace: Headrace, arguments: list[str], said: str) -> None:
    """And exit with 2."""
    done = headrace("dlq", *arguments, code=2)

    assert said in done.stderr


def test_a_letter_that_is_not_there(headrace: Headrace, folder: Path) -> None:
    """Is named."""
    done = headrace("dlq", "show", "0-99", "--data", folder, code=2)

    assert "no dead letter 0-99" in done.stderr


# -- through the real pipeline


async def run_pipeline(
    folder: Path, payloads: Sequence[tuple[bytes, bytes]], types: Path | None = None
) -> tuple[Ledger, list[tuple[str, float]]]:
    """Take messages in, work through everything; the ledger, and what is stored."""

    async def nothing(stop: asyncio.Event) -> None:
        """The messages are in the log already."""

    async with Pipeline(folder, Settings(), load_device_types(types), load_rules(), ManualClock(NOW)) as pipeline:
        if payloads:
            devices, values = zip(*payloads, strict=True)
            await pipeline.intake.append(devices, values, device_type="environmental", profile="test", sources=b"test")
        await pipeline.run(nothing, asyncio.Event())
        connection = await asyncpg.connect(**pipeline.database)
        rows = await connection.fetch("SELECT device_id, temperature FROM readings_environmental ORDER BY 1, time")
        await connection.close()
        return await pipeline.ledger(), [tuple(row) for row in rows]


@pytest.mark.integration
def test_repaired_and_replayed_the_ledger_balances(headrace: Headrace, tmp_path: Path) -> None:
    """Hot readings are refused; the device type is widened, they are replayed, and each is stored, once."""
    data = tmp_path / "data"
    hot = [(b"oven-%d" % n, orjson.dumps({"timestamp": NOW + n, "temp": 200 + n})) for n in range(20)]
    broken = [(b"broken", b"{"), (b"broken", b"{")]
    good = [(b"hall", orjson.dumps({"timestamp": NOW, "temp": 20}))]
    ledger, rows = asyncio.run(run_pipeline(data, [*hot, *broken, *good]))
    assert ledger == Ledger(accepted=23, stored=1, duplicate=0, conflict=0, dead_lettered=22, in_flight=0)
    wide = (TYPES / "environmental.toml").read_text().replace("max = 85", "max = 1000")
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "environmental.toml").write_text(wide)

    done = lines(headrace("dlq", "replay", "--data", data, "--yes", "--json"))[0]
    assert done["sent"] == 22
    ledger, rows = asyncio.run(run_pipeline(data, [], tmp_path / "types"))

    assert ledger == Ledger(accepted=45, stored=21, duplicate=0, conflict=0, dead_lettered=24, in_flight=0)
    assert ledger.difference == 0
    assert rows == sorted([("hall", 20.0), *((f"oven-{n}", 200.0 + n) for n in range(20))])
    # What was refused again is a letter of its own, and knows where it comes from.
    again = lines(headrace("dlq", "list", "--data", data, "--json", "--device", "broken"))
    assert [letter["replayed"] is not None for letter in again] == [True, True, False, False]
    (newest,) = lines(headrace("dlq", "show", again[-1]["id"], "--data", data, "--json"))
    assert newest["headers"]["redriven-from"]["text"] in {again[0]["id"], again[1]["id"]}


@pytest.mark.integration
def test_messages_of_unknown_topics_are_stored_once_there_is_a_profile(headrace: Headrace, tmp_path: Path) -> None:
    """They go back under the device, type and profile that the settings give them now."""
    data, config = tmp_path / "data", tmp_path / "headrace.toml"
    config.write_text('profiles = [{ name = "rooms", topic = "rooms/{device}", device_type = "environmental" }]')

    async def quarantine() -> None:
        async with Pipeline(data, Settings(), load_device_types(), load_rules(), ManualClock(NOW)) as pipeline:
            payload = orjson.dumps({"timestamp": NOW, "temp": 20})
            await RoutedIntake(pipeline.intake, SHIPPED).append([b"rooms/hall", b"room/hall"], [payload] * 2)

    asyncio.run(quarantine())
    before, _ = asyncio.run(run_pipeline(data, []))
    headrace("dlq", "replay", "--data", data, "--config", config, "--yes")
    after, rows = asyncio.run(run_pipeline(data, []))

    assert before == Ledger(accepted=2, stored=0, duplicate=0, conflict=0, dead_lettered=2, in_flight=0)
    assert after == Ledger(accepted=4, stored=1, duplicate=0, conflict=0, dead_lettered=3, in_flight=0)
    assert rows == [("hall", 20.0)]


@pytest.mark.integration
def test_messages_of_unknown_topics_are_unpacked_once_there_is_a_format(headrace: Headrace, tmp_path: Path) -> None:
    """One message of two devices goes back as two, and the ledger balances."""
    data, config = tmp_path / "data", tmp_path / "headrace.toml"
    config.write_text(
        '[[profiles]]\nname = "g"\ntopic = "v1/gateway/#"\ndevice_type = "environmental"\n'
        'format = "thingsboard-gateway"'
    )

    async def quarantine() -> None:
        async with Pipeline(data, Settings(), load_device_types(), load_rules(), ManualClock(NOW)) as pipeline:
            entry = [{"ts": NOW, "values": {"temp": 20}}]
            payload = orjson.dumps({"hall": entry, "roof": entry})
            await RoutedIntake(pipeline.intake, SHIPPED).append([b"v1/gateway/telemetry"], [payload])

    asyncio.run(quarantine())
    asyncio.run(run_pipeline(data, []))
    headrace("dlq", "replay", "--data", data, "--config", config, "--yes")
    after, rows = asyncio.run(run_pipeline(data, []))

    assert after == Ledger(accepted=3, stored=2, duplicate=0, conflict=0, dead_lettered=1, in_flight=0)
    assert rows == [("hall", 20.0), ("roof", 20.0)]


@pytest.mark.integration
async def test_replay_beside_a_running_worker(headrace_process: Headrace, tmp_path: Path) -> None:
    """The worker goes on, and takes what was sent back at once."""
    data, stop = tmp_path / "data", asyncio.Event()
    pipeline = Pipeline(data, Settings(), load_device_types(), load_rules(), ManualClock(NOW))

    async def feed(stopping: asyncio.Event) -> None:
        await pipeline.intake.append([b"broken"], [b"{"], device_type="environmental", profile="test", sources=b"test")
        while not (await pipeline.ledger()).dead_lettered:
            await asyncio.sleep(0.01)
        sent = await asyncio.to_thread(headrace_process, "dlq", "replay", "--data", data, "--yes", "--json")
        assert lines(sent)[0]["sent"] == 1

    async with pipeline:
        await pipeline.run(feed, stop)
        ledger = await pipeline.ledger()

    assert ledger == Ledger(accepted=2, stored=0, duplicate=0, conflict=0, dead_lettered=2, in_flight=0)
