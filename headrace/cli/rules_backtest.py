"""`headrace rules backtest`: what rules would have said of what is stored."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console

from headrace.agents.alerting.backtest import BackTest, looks_back, topics_of
from headrace.cli.moments import duration, iso_ms, moment, words
from headrace.cli.record_progress import RecordProgress
from headrace.cli.rules_backtest_view import BackTested
from headrace.cli.rules_session import RulesSession
from headrace.cli.stored_history import History, LogHistory, database_history
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError, HeadraceError
from headrace.engine.replicas import read_replicas
from headrace.schemas.condition import ThresholdCondition, ValueCondition, kind_of
from headrace.schemas.device_type import DeviceType
from headrace.schemas.expression import Expression
from headrace.schemas.rule import ALL_TYPES, AlertRule
from headrace.tables.rule_checks import rule_mistakes_of

#: How far back, unless something else is said.
LAST = "7d"
#: Alerts that are listed of each rule, unless something else is said.
LIMIT = 100
#: Records so much before the range are looked at, where there are any: what was open then is not taken for new, ms.
WARM_UP_MS = 86_400_000
#: What can only be tried on the log, by kind.
_LOG_ONLY = {"absence": "when messages came", "offline": "when connections ended", "anomaly": "when anomalies came"}


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked for, as it was written; None: not."""

    from_: str | None = None
    to: str | None = None
    last: str | None = None

    def bounds(self, as_of_ms: int) -> tuple[int, int]:
        """Where it begins and ends, ms; times ago count from `as_of_ms`.

        Raises:
            ConfigError: every mistake.
        """
        if self.from_ is not None and self.last is not None:
            raise ConfigError("--last and --from both say where to begin; leave one out")
        end = as_of_ms if self.to is None else moment("--to", self.to, as_of_ms)
        if self.from_ is not None:
            start = moment("--from", self.from_, as_of_ms)
        else:
            start = end - round(duration("--last", self.last or LAST) * 1000)
        if not start < end:
            raise ConfigError(f"the range is empty: it begins at {iso_ms(start)} and ends at {iso_ms(end)}")
        return max(0, start), end


async def back_test(
    session: RulesSession, rules: Sequence[AlertRule], wanted: Range, source: str, screen: Console
) -> BackTested:
    """Try rules on what is stored.

    Args:
        source: "auto": the log if it reaches back, else the database; "log"; "database".
        screen: for progress.
    Raises:
        ConfigError: a condition cannot be tried, the range is none, or there is nothing to try it on.
    """
    kinds = {rule.rule_id: kind_of(rule.condition) for rule in rules}
    if mistakes := list(_untestable(kinds, source)):
        raise ConfigError(*mistakes)
    clock = SystemClock()
    async with AsyncExitStack() as resources:
        log: History = LogHistory(session.opened.log, clock, topics_of(rules))
        history = log
        start_ms, end_ms = wanted.bounds(await log.as_of_ms())
        needed_ms = round(max(map(looks_back, rules)) * 1000)
        reaches = await log.reaches(max(0, start_ms - needed_ms))
        warm_up_ms = max(0, start_ms - max(needed_ms, WARM_UP_MS))
        if source == "database" or (source == "auto" and not reaches and not _LOG_ONLY.keys() & kinds.values()):
            try:
                found = database_history(
                    session.settings, session.data, metrics_of(rules, session.types), devices_of(rules)
                )
                history = await resources.enter_async_context(found)
                reaches = True
            except HeadraceError:
                if source == "database":
                    raise
        test = BackTest(rules, start_ms, end_ms)
        await read_replicas(session.opened.log, test.operator, clock)
        with RecordProgress(screen) as steps:
            # What comes late was appended after the range; in the database it is where it belongs.
            async for part in history.read(warm_up_ms, end_ms):
                test.take(part.fetched)
                steps.show(test.records, part.done)
                if part.ends:
                    test.end_stretch(part.fetched.target.partition)
        last = None if wanted.from_ is not None or wanted.to is not None else words(wanted.last or LAST)
        return BackTested(
            test.finish(), start_ms, end_ms, history.name, test.records, test.oldest_ms, reaches, clock.now_ms(), last
        )


def range_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what to try on; the command gets `wanted`, a `Range`, and `source`."""

    @click.option("--last", metavar="TIME", help=f"So long back, as 24h or 7d. Default: {LAST}.")
    @click.option("--from", "from_", metavar="TIME", help="Where to begin: ISO 8601, or a time ago.")
    @click.option("--to", metavar="TIME", help="Where to end. Default: the newest message.")
    @click.option(
        "--source", type=click.Choice(["auto", "log", "database"]), default="auto", show_default=True,
        help="Where the records are: auto is the log if it reaches back, else the database.",
    )  # fmt: skip
    @functools.wraps(command)
    def ranged(*arguments: Any, last: str | None, from_: str | None, to: str | None, **more: Any) -> None:
        command(*arguments, wanted=Range(from_, to, last), **more)

    return ranged


def _untestable(kinds: Mapping[str, str], source: str) -> Iterator[str]:
    """Why rules, by id with their kinds, cannot be tried."""
    for rule_id, kind in kinds.items():
        if kind in _LOG_ONLY and source == "database":
            yield f"rule {rule_id}: only the log tells {_LOG_ONLY[kind]}; leave --source out"


def metrics_of(rules: Sequence[AlertRule], device_types: Mapping[str, DeviceType]) -> dict[str, set[str]]:
    """Metrics that rules look at, by the device types in which they could trigger."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        for name in device_types if rule.device_type == ALL_TYPES else [rule.device_type]:
            only = rule.model_copy(update={"device_type": name})
            if name in device_types and not list(rule_mistakes_of(only, device_types)):
                found.setdefault(name, set()).update(_inputs(rule, device_types[name]))
    return found


def devices_of(rules: Sequence[AlertRule]) -> Collection[str] | None:
    """Devices that rules are for; None for all."""
    if not all(rule.device_ids for rule in rules):
        return None
    return {device for rule in rules for device in rule.device_ids}


def _inputs(rule: AlertRule, device_type: DeviceType) -> Sequence[str]:
    condition = rule.condition
    assert isinstance(condition, ValueCondition)
    if isinstance(condition, ThresholdCondition):
        return (condition.metric,)
    return Expression(condition.expression, list(device_type.units)).inputs
