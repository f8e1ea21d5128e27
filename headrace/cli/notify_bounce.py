"""`headrace notify bounce`: reads mails that came back."""

import asyncio
from pathlib import Path

import click
import orjson

from headrace.cli.delivery_log import known_states
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.connectors.notifications.bounces import Bounce, read_bounces
from headrace.connectors.notifications.state_changes import apply_bounce
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.schemas.contacts import masked_text


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@log_data_option
@config_option
@json_option
def bounce(paths: tuple[Path, ...], data: Path | None, config: Path | None, as_json: bool) -> None:
    """Read reports of mails that came back, from FILEs: single mails, mboxes, or maildirs.

    An address that does not exist any more is disabled until its user's record changes; a mail that could not be
    delivered for another reason is noted. Run it as often as you like: what is known changes nothing.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    found: list[Bounce] = []
    for path in paths:
        try:
            found += read_bounces(path)
        except (OSError, ValueError) as error:
            wrong.add(f"{path}: {error}")
    wrong.check()
    assert settings is not None
    done = asyncio.run(_apply(settings, data, found))
    if as_json:
        click.echo(orjson.dumps({"reports": len(found), "changed": len(done)}).decode())
        return
    for line in done:
        click.echo(masked_text(line))
    click.echo(f"{len(found):,} reports, {len(done):,} of them news", err=True)


async def _apply(settings: Settings, data: Path | None, found: list[Bounce]) -> list[str]:
    clock = SystemClock()
    async with opened_log(settings, data) as opened:
        known = await known_states(opened.log)
        if known is None:
            raise ConfigError("the log has no notifications yet: nothing can have come back")
        lines = [await apply_bounce(opened.log, each, known, clock.now_ms()) for each in found]
    return [line for line in lines if line is not None]
