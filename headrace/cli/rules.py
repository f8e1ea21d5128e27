"""`headrace rules`: the alert rules."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from rich.console import Console
from rich.text import Text

from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms, words
from headrace.cli.opened_log import log_data_option
from headrace.cli.rule_options import document_with, given_of, rule_options
from headrace.cli.rule_toml import rules_toml
from headrace.cli.rules_backtest import LAST, LIMIT, Range, back_test, range_options
from headrace.cli.rules_session import RulesSession, Saved, document_of, rules_session, user_option
from headrace.cli.running import Mistakes, config_option
from headrace.cli.settings import Settings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from headrace.schemas.rule import ALL_TYPES, AlertRule, Severity
from headrace.tables.device_types import load_device_types
from headrace.tables.known_rules import KnownRule, no_rule, rule_named
from headrace.tables.rules import read_rules

STATUSES = ("active", "inactive", "deleted")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
lines_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")

#: Notes about doubtful rules that people are shown.
MOST_NOTES = 20


@click.group()
def rules() -> None:
    """The alert rules: list, show, check, set, import, export, switch and delete them.

    It works beside a running worker, on its data folder or on Kafka; what changes applies to messages that come a
    second later. Rules of the configuration are there too: a rule set here takes the place of the one with the same
    id. See docs/guides/alert-rules.md.
    """


@rules.command(name="list")
@click.option("--all", "deleted", is_flag=True, help="Deleted rules too.")
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Of this severity.")
@click.option("--status", type=click.Choice(STATUSES), help="With this status.")
@click.option("--type", "type_", metavar="NAME", help="That apply to devices of this type.")
@lines_option
@log_data_option
@config_option
def list_(
    deleted: bool,
    severity: str | None,
    status: str | None,
    type_: str | None,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """List rules: those of the configuration, then the others by id. Options that choose go together."""

    def chosen(rule: AlertRule) -> bool:
        listed = deleted or status == "deleted" or rule.status != "deleted"
        fits = severity in (None, rule.severity) and status in (None, rule.status)
        return listed and fits and (type_ is None or rule.device_type in (ALL_TYPES, type_))

    known = asyncio.run(_known(config, data))
    found = [each for each in known.values() if chosen(each.rule)]
    if as_json:
        for each in found:
            click.echo(_json(each))
        return
    table = listing("id", "name", "severity", "status", "devices", "condition", "from")
    for rule, source in found:
        cells = (rule.rule_id, rule.name, rule.severity, rule.status, _devices(rule), str(rule.condition), source)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    show_listing(table)


@rules.command()
@click.argument("rule_id", metavar="ID")
@json_option
@log_data_option
@config_option
def show(rule_id: str, as_json: bool, data: Path | None, config: Path | None) -> None:
    """Show all of the rule ID, a deleted one too."""
    found = rule_named(rule_id, asyncio.run(_known(config, data)))
    if as_json:
        click.echo(_json(found))
        return
    table = listing("", "", header=False)
    rows = {"when": str(found.rule.condition), "from": found.source, **document_of(found.rule)}
    for name, value in rows.items():
        told = (
            iso_ms(value) if name.endswith("At") else value if isinstance(value, str) else orjson.dumps(value).decode()
        )
        table.add_row(Text(name), Text(printable(told)))
    show_listing(table)


@rules.command(name="set")
@click.argument("target", metavar="ID|FILE")
@rule_options
@click.option("--backtest", is_flag=True, help=f"First say what it would have done in the last {words(LAST)}, and ask.")
@click.option("--yes", is_flag=True, help="With --backtest: do not ask.")
@user_option
@json_option
@log_data_option
@config_option
def set_(
    target: str,
    backtest: bool,
    yes: bool,
    user: str,
    as_json: bool,
    data: Path | None,
    config: Path | None,
    **options: Any,
) -> None:
    """Set a rule: the one in FILE (TOML, or JSON), or the rule ID from options.

    Of a rule that is there, options change what they name and leave the rest; a file is the whole rule.

    \b
    headrace rules set hot --metric temperature --operator '>' --threshold 40 --duration 5m --severity critical
    headrace rules set hot --threshold 45
    """
    given = given_of(options)
    from_file = not given and Path(target).is_file()
    if not given and not from_file:
        raise ConfigError(f"{target}: no such file; for a rule of this id name what to set, as in --threshold 40")

    def make(session: RulesSession, known: dict[str, KnownRule]) -> dict[str, AlertRule]:
        if from_file:
            found = session.read(Path(target))
            if len(found) != 1:
                raise ConfigError(f"{target} holds {len(found)} rules; headrace rules import takes many")
            return {rule.rule_id: rule for rule in found}
        before = known[target].rule if target in known else None
        if before is not None and before.status == "deleted":
            before = None
        rule, wrong = session.checked(document_with(given, target, before))
        if wrong or rule is None:
            raise ConfigError(*wrong)
        return {target: rule}

    ask = None if yes else "save it?"
    asyncio.run(_change(config, data, user, make, as_json, make_log=True, try_first=backtest, ask=ask))


@rules.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only check, and say what would change.")
@user_option
@json_option
@log_data_option
@config_option
def import_(file: Path, dry_run: bool, user: str, as_json: bool, data: Path | None, config: Path | None) -> None:
    """Add and change the rules of FILE: TOML with [[rule]] tables, or JSON (one, an array, or one per line).

    Each is the whole rule. Rules that FILE does not name stay as they are; if one is wrong nothing is imported.
    """

    def make(session: RulesSession, known: dict[str, KnownRule]) -> dict[str, AlertRule]:
        return {rule.rule_id: rule for rule in session.read(file)}

    asyncio.run(_change(config, data, user, make, as_json, make_log=not dry_run, dry_run=dry_run))


@rules.command()
@click.option("--format", "form", type=click.Choice(["toml", "json"]), default="toml", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: one JSON object per line.")
@click.option("--all", "deleted", is_flag=True, help="Deleted rules too.")
@log_data_option
@config_option
def export(form: str, as_json: bool, deleted: bool, data: Path | None, config: Path | None) -> None:
    """Print every rule, as a file that `headrace rules import` reads, or `[alert] rules` names."""
    known = asyncio.run(_known(config, data))
    found = [each.rule for each in known.values() if deleted or each.rule.status != "deleted"]
    if as_json or form == "json":
        for rule in found:
            click.echo(orjson.dumps(document_of(rule)).decode())
    else:
        click.echo(rules_toml(found), nl=False)


def _switch(status: str, ids: tuple[str, ...]) -> Callable[[RulesSession, dict[str, KnownRule]], dict[str, AlertRule]]:
    def make(session: RulesSession, known: dict[str, KnownRule]) -> dict[str, AlertRule]:
        if missing := [no_rule(rule_id, known) for rule_id in ids if rule_id not in known]:
            raise ConfigError(*missing)
        changed = {rule_id: known[rule_id].rule.model_copy(update={"status": status}) for rule_id in ids}
        session.check(changed.values())
        return changed

    return make


def _switching(name: str, status: str, text: str) -> None:
    @rules.command(name=name, help=text)
    @click.argument("rule_ids", metavar="ID...", nargs=-1, required=True)
    @user_option
    @json_option
    @log_data_option
    @config_option
    def switch(rule_ids: tuple[str, ...], user: str, as_json: bool, data: Path | None, config: Path | None) -> None:
        asyncio.run(_change(config, data, user, _switch(status, rule_ids), as_json))


_switching("enable", "active", "Evaluate rules (again); brings deleted ones back.")
_switching("disable", "inactive", "Keep rules without evaluating them; their open alerts end.")


@rules.command()
@click.argument("rule_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--purge", is_flag=True, help="Keep nothing of them; a rule of the configuration with the id applies again."
)
@user_option
@json_option
@log_data_option
@config_option
def delete(
    rule_ids: tuple[str, ...], purge: bool, user: str, as_json: bool, data: Path | None, config: Path | None
) -> None:
    """Delete rules: they are evaluated no more, their open alerts end, and `list --all` still shows them."""
    if not purge:
        asyncio.run(_change(config, data, user, _switch("deleted", rule_ids), as_json))
        return
    asyncio.run(_purge(config, data, rule_ids, as_json))


@rules.command()
@click.argument("files", metavar="[FILE...]", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
@log_data_option
@config_option
def check(files: tuple[Path, ...], as_json: bool, data: Path | None, config: Path | None) -> None:
    """Say every mistake in FILES, or without one in the rules there are. Exits with 2 if there is any."""
    if files:
        settings, wrong = load(Settings, config), Mistakes()
        types = wrong.take(lambda: load_device_types(settings.device_types))
        wrong.check()
        read = [read_rules(file, types, settings.detect.detectors) for file in files]
        right, mistakes = sum(len(each.rules) for each in read), [one for each in read for one in each.mistakes]
    else:
        right, mistakes = asyncio.run(_check_known(config, data))
    if as_json:
        click.echo(orjson.dumps({"right": right, "mistakes": mistakes}).decode())
    else:
        for mistake in mistakes:
            click.echo(mistake)
        click.echo(f"{right} rule{'' if right == 1 else 's'} {'is' if right == 1 else 'are'} right")
    if mistakes:
        sys.exit(2)


@rules.command()
@click.argument("target", metavar="ID|FILE")
@range_options
@click.option("--limit", type=click.IntRange(min=0), default=LIMIT, show_default=True, help="Alerts listed; 0 for all.")
@json_option
@log_data_option
@config_option
def backtest(
    target: str, wanted: Range, source: str, limit: int, as_json: bool, data: Path | None, config: Path | None
) -> None:
    """Say what the rule ID, or the rules of FILE, would have done: how many alerts, on which devices, when.

    On what the log still has, if it reaches back so far, else on the readings of the database. Rules that are inactive
    are tried all the same. Nothing is changed, and nobody is told.
    """
    asyncio.run(_back_test(config, data, target, wanted, source, limit, as_json))


async def _back_test(
    config: Path | None, data: Path | None, target: str, wanted: Range, source: str, limit: int, as_json: bool
) -> None:
    async with rules_session(config, data) as session:
        known, _ = await session.known()
        found = session.read_if_file(target)
        if not found and target not in known:
            raise ConfigError(f"{no_rule(target, known)}; nor is there such a file")
        found = found or [known[target].rule]
        done = await back_test(session, found, wanted, source, Console(stderr=True))
    if as_json:
        click.echo(done.json(limit))
    else:
        done.show(limit)


async def _known(config: Path | None, data: Path | None) -> dict[str, KnownRule]:
    async with rules_session(config, data) as session:
        known, mistakes = await session.known()
    for mistake in mistakes:
        click.echo(f"left out: {mistake}", err=True)
    return known


async def _check_known(config: Path | None, data: Path | None) -> tuple[int, list[str]]:
    async with rules_session(config, data) as session:
        known, mistakes = await session.known()
        right = 0
        for rule_id, (rule, _) in known.items():
            _, wrong = session.checked(rule.model_dump(mode="json"))
            mistakes += [f"rule {rule_id}: {each}" for each in wrong]
            right += not wrong
    return right, mistakes


async def _change(
    config: Path | None,
    data: Path | None,
    user: str,
    make: Callable[[RulesSession, dict[str, KnownRule]], dict[str, AlertRule]],
    as_json: bool,
    *,
    make_log: bool = False,
    dry_run: bool = False,
    try_first: bool = False,
    ask: str | None = None,
) -> None:
    async with rules_session(config, data, make=make_log) as session:
        known, _ = await session.known()
        made = make(session, known)
        if try_first:
            tried = await back_test(session, list(made.values()), Range(), "auto", Console(stderr=True))
            tried.show(LIMIT, err=as_json)
            if ask is not None and not _confirmed(ask):
                click.echo("nothing was saved; --yes saves without asking", err=True)
                sys.exit(1)
        done = await session.save(made, known, user, dry_run=dry_run)
    _show(done, as_json)


def _confirmed(question: str) -> bool:
    """Whether somebody says yes; nobody there is a no."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


async def _purge(config: Path | None, data: Path | None, rule_ids: tuple[str, ...], as_json: bool) -> None:
    async with rules_session(config, data) as session:
        done = await session.purge(rule_ids)
    _show(done, as_json)


def _show(done: Saved, as_json: bool) -> None:
    if not as_json:
        for note in done.notes[:MOST_NOTES]:
            click.echo(f"note: {note}", err=True)
        if len(done.notes) > MOST_NOTES:
            click.echo(f"{len(done.notes) - MOST_NOTES:,} more notes; --json has all of them", err=True)
    click.echo(done.json() if as_json else done.text())


def _json(found: KnownRule) -> str:
    return orjson.dumps({**document_of(found.rule), "source": found.source}).decode()


def _devices(rule: AlertRule) -> str:
    of_type = "all" if rule.device_type == ALL_TYPES else rule.device_type
    return f"{of_type}, {len(rule.device_ids):,} of them" if rule.device_ids else of_type
