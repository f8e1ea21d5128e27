"""`headrace users preview`: what would have reached somebody with settings of theirs."""

import asyncio
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from headrace.agents.notifying.preview import Preview
from headrace.cli.alert_history import alert_history, oldest_event_ms
from headrace.cli.document_fields import put_field
from headrace.cli.moments import iso_ms, moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.record_progress import RecordProgress
from headrace.cli.running import Mistakes, config_option, consoles
from headrace.cli.settings import Settings
from headrace.cli.users_import import read_user
from headrace.cli.users_preview_view import Previewed
from headrace.connectors.user_file import USER_KIND, user_document, user_path
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log_time import log_now_ms
from headrace.engine.replicas import read_replicas
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near
from headrace.schemas.user import Preferences, User
from headrace.schemas.user_mistakes import check_user
from headrace.tables.device_types import load_device_types
from headrace.tables.users import UserRegistry

#: How far back, unless something else is said; decisions that are listed, likewise.
SINCE, LIMIT = "7d", 100
#: Events between two lines of progress off a terminal.
PLAIN_STEP = 100_000


@click.command()
@click.argument("user_id", metavar="USER")
@click.option("--since", metavar="TIME", default=SINCE, show_default=True, help="ISO 8601, or so long ago, as 7d.")
@click.option("--until", metavar="TIME", help="Likewise; what is held then stays held. Default: now.")
@click.option(
    "--settings", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML or JSON with fields of the user that are to be others, as quietHours or notifications.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="The first; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def preview(
    user_id: str,
    since: str,
    until: str | None,
    file: Path | None,
    limit: int,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """Show what would have reached USER with the settings that they have, or with those of FILE; nothing is sent.

    The alerts that the log has are decided on anew, by the same code and on the time that it was then, with [notify] as
    it is now: give another --config to try that. See docs/guides/notifications.md.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    types = wrong.take(lambda: load_device_types(settings.device_types)) if settings else None
    changes = wrong.take(lambda: read_changes(file)) if file else {}
    wrong.check()
    assert settings is not None
    assert types is not None
    found = asyncio.run(_previewed(settings, data, types, user_id, (since, until), changes or {}, consoles(as_json)[0]))
    if as_json:
        click.echo(found.json(limit))
    else:
        found.show(limit)


def read_changes(file: Path) -> dict[str, Any]:
    """Fields that are to be others.

    Raises:
        ConfigError: it cannot be read, or there are none in it.
    """
    try:
        text = file.read_text("utf-8-sig")
        found = tomllib.loads(text) if file.suffix.lower() == ".toml" else orjson.loads(text)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        kind = "TOML" if file.suffix.lower() == ".toml" else "JSON; name a file of TOML .toml"
        raise ConfigError(f"{file}: not {kind} ({error})") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f'{file}: write fields of a user, as in quietHours = {{ start = "22:00", end = "07:00" }}')
    return found


def changed(user: User, changes: dict[str, Any], file: str = "--settings") -> User:
    """Somebody with other settings; a field that is given replaces all of what it was, null takes it away.

    Raises:
        ConfigError: every mistake.
    """
    names = (field.alias or name for name, field in Preferences.model_fields.items())
    known = [*names, *USER_KIND.fields, *USER_KIND.spellings]
    if strange := [name for name in changes if user_path(name)[0] not in USER_KIND.fields]:
        raise ConfigError(*(f"{file}: no user has {name!r}{near(name, known)}" for name in strange))
    document: dict[str, Any] = user.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for name, value in changes.items():
        put_field(document, user_path(name), user_document({name: value}))
    after, wrong = check_user(document)
    if after is not None and after.user_id != user.user_id:
        wrong.append(f"userId: these are settings of {after.user_id}, and the preview is for {user.user_id}")
    if wrong or after is None:
        raise ConfigError(*(f"{file}: {each}" for each in wrong))
    return after


async def _previewed(
    settings: Settings,
    data: Path | None,
    types: dict[str, DeviceType],
    user_id: str,
    span: tuple[str, str | None],
    changes: dict[str, Any],
    screen: Console,
) -> Previewed:
    clock = SystemClock()
    async with opened_log(settings, data) as opened:
        stored = await UserRegistry(opened.log, clock).stored()
        user = read_user(stored[user_id]) if user_id in stored else None
        if user is None:
            raise ConfigError(_nobody(user_id, stored))
        user = changed(user, changes)
        now_ms = await log_now_ms(opened.log, clock)
        start_ms, end_ms = _bounds(*span, now_ms)
        run = Preview(user, settings.notify, types, start_ms)
        await read_replicas(opened.log, run, clock)
        oldest_ms, records = await oldest_event_ms(opened.log), 0
        with RecordProgress(screen, PLAIN_STEP) as progress:
            async for stretch in alert_history(opened.log, end_ms):
                run.take(stretch.parts, stretch.until_ms)
                records += sum(len(part.records) for part in stretch.parts)
                progress.show(records, stretch.done)
        run.finish(end_ms)
    return Previewed(user, run, start_ms, end_ms, oldest_ms)


def _bounds(since: str, until: str | None, now_ms: int) -> tuple[int, int]:
    end_ms = now_ms if until is None else min(now_ms, moment("--until", until, now_ms))
    start_ms = moment("--since", since, now_ms)
    if start_ms >= end_ms:
        raise ConfigError(f"the range is empty: it begins at {iso_ms(start_ms)} and ends at {iso_ms(end_ms)}")
    return start_ms, end_ms


def _nobody(user_id: str, known: Collection[str]) -> str:
    return f"there is no user {user_id!r}{near(user_id, known)}; headrace users list shows those there are"
