"""`headrace alerts silence|silences|unsilence`: alerts that nobody is told of for a while."""

import asyncio
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from pydantic import ValidationError
from rich.text import Text

from headrace.cli.alerts_commands import user_option
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import duration, iso_ms, moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option
from headrace.cli.settings import Settings
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.engine.log_time import log_now_ms
from headrace.schemas import topics
from headrace.schemas.rule import Severity
from headrace.schemas.silence import MOST_SILENCES, Silence
from headrace.schemas.text import near
from headrace.tables.live_registry import LiveRegistry

#: Silences that have been over for so long are taken out when another one is made, ms.
KEEP_OVER_MS = 7 * 86_400_000
#: Fields that choose, as they are shown.
_CHOOSING = ("rule_ids", "device_ids", "device_types", "gateway_ids", "organization_ids", "severities")


class _Silences(LiveRegistry[Silence]):
    """The topic of silences."""

    def __init__(self, log: Log) -> None:
        super().__init__(log, topics.SILENCES, encode_silence, SystemClock())

    async def known(self) -> dict[str, Silence]:
        """Every silence by id; what is none is left out."""
        found = {}
        for name, value in sorted((await self.stored()).items()):
            try:
                found[name] = Silence.model_validate_json(value)
            except ValidationError:
                continue
        return found


def encode_silence(silence: Silence) -> bytes:
    """A silence as the topic has it."""
    return silence.model_dump_json(by_alias=True, exclude_defaults=True).encode()


@click.command()
@click.option("--rule", "rule_ids", metavar="ID", multiple=True, help="Alerts of this rule.")
@click.option("--device", "device_ids", metavar="ID", multiple=True, help="Of this device.")
@click.option("--type", "device_types", metavar="NAME", multiple=True, help="Of devices of this type.")
@click.option("--gateway", "gateway_ids", metavar="ID", multiple=True, help="Of a gateway and the devices behind it.")
@click.option("--organisation", "organization_ids", metavar="NAME", multiple=True, help="Of its devices.")
@click.option("--severity", "severities", type=click.Choice(get_args(Severity)), multiple=True, help="Of it.")
@click.option("--for", "length", metavar="TIME", help="So long, as in 2h.")
@click.option("--until", metavar="TIME", help="Until then, as in 2025-06-01T12:00.")
@click.option("--from", "start", metavar="TIME", help="From then on. Default: now.")
@click.option("--comment", metavar="TEXT", required=True, help="Why.")
@user_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def silence(
    length: str | None,
    until: str | None,
    start: str | None,
    comment: str,
    user: str,
    as_json: bool,
    data: Path | None,
    config: Path | None,
    **choosing: tuple[str, ...],
) -> None:
    """Tell nobody of alerts that fit, for a while. Each option may be given several times: one of them must fit.

    Of different options all must fit. It applies to what comes a second later, and at once to alerts that are open.
    """
    if (length is None) == (until is None):
        raise ConfigError("say how long: --for 2h, or --until 2025-06-01T12:00")
    settings = _settings(config, data)

    async def make() -> Silence:
        async with opened_log(settings, data) as opened:
            registry = _Silences(opened.log)
            known, now = await registry.known(), await log_now_ms(opened.log, SystemClock())
            applies = await registry.applies_at() or now
            over = [name for name, each in known.items() if each.ends_at < applies - KEEP_OVER_MS]
            if len(known) - len(over) >= MOST_SILENCES:
                raise ConfigError(f"there are {MOST_SILENCES:,} silences, which is the most; unsilence some first")
            starts = applies if start is None else moment("--from", start, now)
            ends = starts + _ms("--for", length) if length is not None else moment("--until", until or "", now)
            try:
                made = Silence(
                    id=uuid.uuid4().hex[:12], starts_at=starts, ends_at=ends, comment=comment, created_by=user,
                    **choosing,
                )  # fmt: skip
            except ValidationError as error:
                raise ConfigError(*(each["msg"].removeprefix("Value error, ") for each in error.errors())) from None
            await registry.change({**dict.fromkeys(over), made.id: made})
            return made

    made = asyncio.run(make())
    if as_json:
        click.echo(encode_silence(made).decode())
    else:
        click.echo(f"{made.id}: {_which(made)}, {iso_ms(made.starts_at)} to {iso_ms(made.ends_at)}")


@click.command()
@click.option("--all", "over_too", is_flag=True, help="Those that are over, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def silences(over_too: bool, as_json: bool, data: Path | None, config: Path | None) -> None:
    """List silences by when they end."""
    known, now = asyncio.run(_known(_settings(config, data), data))
    found = [each for each in known.values() if over_too or each.ends_at > now]
    found.sort(key=lambda each: (each.ends_at, each.id))
    table = listing("id", "state", "from", "until", "alerts", "who", "comment")
    for each in found:
        state = "planned" if now < each.starts_at else "over" if now >= each.ends_at else "active"
        if as_json:
            click.echo(orjson.dumps({**orjson.loads(encode_silence(each)), "state": state}).decode())
            continue
        cells = (
            each.id, state, iso_ms(each.starts_at), iso_ms(each.ends_at), _which(each), each.created_by, each.comment,
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if not as_json:
        show_listing(table)


@click.command()
@click.argument("silence_ids", metavar="SILENCE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def unsilence(silence_ids: tuple[str, ...], as_json: bool, data: Path | None, config: Path | None) -> None:
    """Take SILENCEs away: from a second later on people are told again."""
    settings = _settings(config, data)

    async def remove() -> None:
        async with opened_log(settings, data) as opened:
            registry = _Silences(opened.log)
            stored = await registry.stored()
            missing = [each for each in silence_ids if each not in stored]
            if missing:
                raise ConfigError(*(f"there is no silence {each!r}{near(each, stored)}" for each in missing))
            await registry.change(dict.fromkeys(silence_ids))

    asyncio.run(remove())
    removed = {"removed": list(silence_ids)}
    click.echo(orjson.dumps(removed).decode() if as_json else f"removed {', '.join(silence_ids)}")


async def _known(settings: Settings, data: Path | None) -> tuple[Mapping[str, Silence], int]:
    """Silences by id, and the time that they are to be compared with."""
    async with opened_log(settings, data) as opened:
        registry = _Silences(opened.log)
        return await registry.known(), await log_now_ms(opened.log, SystemClock())


def _settings(config: Path | None, data: Path | None) -> Settings:
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None
    return settings


def _ms(option: str, length: str) -> int:
    return round(duration(option, length) * 1000)


def _which(silence: Silence) -> str:
    document: dict[str, Any] = silence.model_dump(by_alias=True)
    names = {name: Silence.model_fields[name].alias or name for name in _CHOOSING}
    return "; ".join(
        f"{name.replace('_', ' ').removesuffix(' ids')} {', '.join(document[alias])}"
        for name, alias in names.items()
        if document[alias]
    )
