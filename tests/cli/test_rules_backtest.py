"""`headrace rules backtest`: what rules would have done is what they did."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.cli.moments import iso_ms
from headrace.cli.pipeline import Pipeline
from headrace.cli.settings import Settings
from headrace.engine.clock import ManualClock
from headrace.engine.log import Append, TopicPartition, Transaction
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.presence import Presence
from headrace.tables.device_types import load_device_types
from headrace.tables.rules import read_rules
from tests.cli.conftest import Headrace

pytestmark = pytest.mark.integration

START, MINUTE = 1_750_000_000_000 // 60_000 * 60_000, 60_000
MINUTES = 240
DEVICES = [f"d{number}" for number in range(5)]
RULES = """
[[rule]]
rule_id = "hot"
name = "Hot"
condition = { metric = "temperature", operator = ">", threshold = 40, clear = 38, duration = 120 }
cooldown_period = 1200

[[rule]]
rule_id = "close"
name = "Close"
condition = { expression = "temperature > 35 and humidity > 50", out_of = { n = 3, m = 4 } }
status = "inactive"

[[rule]]
rule_id = "rising"
name = "Rising"
device_ids = ["d1", "d2"]
condition = { metric = "temperature", operator = ">=", threshold = 6, rate_per = 60 }
"""
#: Rules that only the log can tell about.
TIMED = """
[[rule]]
rule_id = "silent"
name = "Silent"
condition = { silent_for = 600 }

[[rule]]
rule_id = "away"
name = "Away"
condition = { offline_for = 300 }

[[rule]]
rule_id = "odd"
name = "Odd"
condition = { anomaly_score = 0, clear_after = 600 }
cooldown_period = 0
"""
#: Rule, device, when it triggered and when it was over.
Told = set[tuple[str, str, str, str | None]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """A data folder with four hours of five devices, and the alerts that the rules made of them live."""
    folder = tmp_path_factory.mktemp("backtest")
    (folder / "rules.toml").write_text(RULES)
    (folder / "timed.toml").write_text(TIMED)
    return folder, asyncio.run(lived(folder))


async def lived(folder: Path) -> Told:
    clock, rng = ManualClock(START), random.Random(8)
    read = [*read_rules(folder / "rules.toml").rules, *read_rules(folder / "timed.toml").rules]
    rules = [rule.model_copy(update={"status": "active"}) for rule in read]
    warm = dict.fromkeys(DEVICES, 36.0)
    async with Pipeline(folder / "data", Settings(), load_device_types(), rules, clock) as pipeline:

        async def feed(stop: asyncio.Event) -> None:
            for minute in range(MINUTES):
                time = START + minute * MINUTE
                clock.follow(time)
                for name in DEVICES:
                    warm[name] = min(60.0, max(20.0, warm[name] + rng.gauss(0, 3)))
                said = [name for place, name in enumerate(DEVICES) if not 0 < minute - 40 * place < 25]
                payloads = [
                    orjson.dumps(
                        {"timestamp": time, "temperature": round(warm[name], 2), "humidity": rng.uniform(40, 70)}
                    )
                    for name in said
                ]
                ids = [name.encode() for name in said]
                await pipeline.intake.append(ids, payloads, device_type="environmental", profile="test")
                if minute % 10 == 0:
                    states = ("connected", "disconnected")
                    await connection(pipeline, DEVICES[minute % 3], states[rng.random() < 0.5], time)

        await pipeline.run(feed, asyncio.Event())
        told: dict[str, Alert] = {}
        async with reading(pipeline.log) as reader:
            starts = await first_offsets(pipeline.log, topics.ALERTS)
            for target, end in (await pipeline.log.end_offsets(topics.ALERTS)).items():
                async for fetched in read_range(reader, target, starts[target], end):
                    for value in fetched.records.values:
                        event = AlertEvent.model_validate_json(value or b"")
                        assert isinstance(event.data, Alert)
                        told[event.data.alertId] = event.data
    return {
        (
            each.ruleId,
            each.deviceId,
            iso_ms(each.triggeredAt),
            None if each.resolvedAt is None else iso_ms(each.resolvedAt),
        )
        for each in told.values()
    }


async def connection(pipeline: Pipeline, device_id: str, state: str, time: int) -> None:
    """A connection of a device begins, or ends."""
    presence = Presence.model_validate(
        {"device_id": device_id, "client_id": device_id, "state": state, "time": time, "connection_id": str(time)}
    )
    target = TopicPartition(
        topics.PRESENCE, Partitioner(pipeline.log.partitions(topics.PRESENCE)).partition(device_id.encode())
    )
    records = Records([device_id.encode()], [presence.model_dump_json().encode()], [time])
    await pipeline.log.commit(Transaction([Append(target, records)]))


def timed(told: Told, *, is_timed: bool) -> Told:
    """Those of rules about time, or the others."""
    return {each for each in told if (each[0] in ("silent", "away", "odd")) == is_timed}


def without_ends(told: Told) -> Told:
    """Without when anomalies were over: live, a device's readings may have been judged before its last anomaly was."""
    return {(rule, device, at, None if rule == "odd" else end) for rule, device, at, end in told}


def episodes(found: dict[str, Any]) -> Told:
    return {
        (rule["rule"]["ruleId"], each["deviceId"], each["triggeredAt"], each["resolvedAt"])
        for rule in found["rules"]
        for each in rule["episodes"]
    }


@pytest.mark.parametrize(
    "source", [("--source", "log"), ("--source", "database"), ("--source", "database", "--last", "200d")]
)
def test_it_finds_what_the_rules_did(headrace: Headrace, world: tuple[Path, Told], source: tuple[str, ...]) -> None:
    """Every alert, and no other, with the times at which it triggered and ended; inactive rules are tried too."""
    folder, told = world

    found = json.loads(
        headrace("rules", "backtest", folder / "rules.toml", "--data", folder / "data", *source,
                 "--limit", "0", "--json").stdout
    )  # fmt: skip

    assert episodes(found) == timed(told, is_timed=False)
    assert {rule for rule, *_ in episodes(found)} == {"hot", "close", "rising"}
    assert found["source"] == f"the {source[1]}"
    assert found["complete"]
    hot = found["rules"][0]
    # All times are of one form: texts in the order of time.
    times = [[sample["time"] for sample in each["evidence"]] + [each["triggeredAt"]] for each in hot["episodes"]]
    assert all(len(each) > 1 and iso_ms(START) <= each[0] and each == sorted(each) for each in times)
    assert hot["alerts"] == len(hot["episodes"])
    assert hot["devices"] == len({each["deviceId"] for each in hot["episodes"]})
    assert all(each["peak"] >= each["actualValue"] > 38 for each in hot["episodes"])
    assert any(each["peak"] > each["actualValue"] for each in hot["episodes"])


def test_it_finds_silence_connections_and_anomalies(headrace: Headrace, world: tuple[Path, Told]) -> None:
    """In the order of the log, in which time goes on with every record."""
    folder, told = world
    expected = timed(told, is_timed=True)

    found = json.loads(
        headrace("rules", "backtest", folder / "timed.toml", "--data", folder / "data", "--limit", "0", "--json").stdout
    )

    assert without_ends(episodes(found)) == without_ends(expected)
    assert {rule for rule, *_ in expected} == {"silent", "away", "odd"}


def test_a_range_counts_what_triggers_in_it(headrace: Headrace, world: tuple[Path, Told]) -> None:
    """Readings before it warm the rules up, so that what was open before is not taken for new."""
    folder, told = world
    first, last = iso_ms(START + 100 * MINUTE), iso_ms(START + 200 * MINUTE)

    found = json.loads(
        headrace("rules", "backtest", folder / "rules.toml", "--data", folder / "data", "--from", first, "--to", last,
                 "--limit", "0", "--json").stdout
    )  # fmt: skip

    told = timed(told, is_timed=False)
    began = {each[:3] for each in told if first <= each[2] < last}
    before = [each for each in told if each[2] < first and (each[3] is None or each[3] >= first)]
    assert {each[:3] for each in episodes(found)} == began
    assert sum(rule["openBefore"] for rule in found["rules"]) == len(before) > 0


def test_it_says_so_in_words(headrace: Headrace, world: tuple[Path, Told]) -> None:
    """How many alerts on how many devices in which time, with a line for each."""
    folder, told = world
    hot = [each for each in told if each[0] == "hot"]

    done = headrace("rules", "backtest", folder / "rules.toml", "--data", folder / "data", "--last", "7d")

    lines = done.stdout.decode().splitlines()
    assert lines[0] == "hot: temperature > 40 for 120 s"
    end = iso_ms(START + MINUTES * MINUTE)
    assert lines[1] == f"in the 7 days before {end}: {len(hot)} alerts on {len({each[1] for each in hot})} devices"
    assert sum(iso in line for line in lines[3 : 3 + len(hot)] for *_, iso, _ in hot if iso in line) >= len(hot)
    assert f"{MINUTES * len(DEVICES) - 24 * len(DEVICES):,} records of the log looked at" in done.stderr


def test_a_rule_is_tried_before_it_is_saved(headrace: Headrace, world: tuple[Path, Told]) -> None:
    """It says what would have been, and saves when told so; who does not answer saves nothing."""
    folder, told = world
    options = ("--metric", "temperature", "--operator", ">", "--threshold", "40", "--clear", "38", "--duration", "2m",
               "--cooldown", "20m", "--data", folder / "data")  # fmt: skip

    unanswered = headrace("rules", "set", "new", *options, "--backtest", code=1)
    before = headrace("rules", "list", "--json", "--data", folder / "data").stdout
    done = headrace("rules", "set", "new", *options, "--backtest", "--yes")

    count = len([each for each in told if each[0] == "hot"])
    assert f": {count} alerts on " in unanswered.stdout.decode()
    assert b'"new"' not in before
    assert f": {count} alerts on " in done.stdout.decode()
    assert b'"new"' in headrace("rules", "list", "--json", "--data", folder / "data").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone", "--source", "database"), "rule gone: only the log tells when messages came; leave --source out"),
        (("overheating", "--last", "7d", "--from", "2h"), "--last and --from both say where to begin"),
        (("overheating", "--from", "2h", "--to", "3h"), "the range is empty"),
        (("overheatin",), "did you mean 'overheating'?"),
    ],
)
def test_what_cannot_be_tried_says_why(
    headrace: Headrace, world: tuple[Path, Told], arguments: tuple[str, ...], told: str
) -> None:
    """With exit code 2."""
    data = ("--data", world[0] / "data")
    headrace("rules", "set", "gone", "--silent-for", "5m", *data)

    assert told in headrace("rules", "backtest", *arguments, *data, code=2).stderr


def test_an_empty_log_says_that_it_is(headrace: Headrace, tmp_path: Path) -> None:
    """Nothing is stored: no alerts, and it says why."""
    data = ("--data", tmp_path / "data")
    headrace("rules", "disable", "overheating", *data, code=2)
    headrace("rules", "set", "hot", "--metric", "temperature", "--operator", ">", "--threshold", "40", *data)

    done = headrace("rules", "backtest", "hot", *data)

    assert b"in the last 7 days: 0 alerts" in done.stdout
    assert "0 records of the log looked at; none is stored" in done.stderr
