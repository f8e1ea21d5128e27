"""`headrace alerts ack|resolve|comment|snooze`: what a person wants done with alerts."""

import asyncio
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from pydantic import ValidationError

from headrace.cli.alert_answers import change_of, send_commands
from headrace.cli.alert_states import alert_named, read_states
from headrace.cli.moments import duration, moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.rules_session import system_user
from headrace.cli.running import Mistakes, config_option
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log_time import log_now_ms
from headrace.schemas.alert_command import Acknowledge, AddComment, AlertCommand, Resolve, Snooze
from headrace.schemas.text import what_is_wrong

#: Seconds that a command waits for its answer.
TIMEOUT = 30.0
#: Options by the field of a command that they fill.
_OPTIONS = {
    "comment": "--comment", "resolution": "--resolution", "preventionNotes": "--prevention", "until": "--until",
    "userId": "--user", "userName": "--user-name",
}  # fmt: skip

Function = TypeVar("Function", bound=Callable[..., Any])

user_option = click.option(
    "--user", default=system_user, metavar="ID", help="Who wants it. Default: the system's user."
)


def _sending(function: Function) -> Function:
    """Options of every command, and the alerts that it is about."""
    options = (
        click.argument("alert_ids", metavar="ALERT...", nargs=-1, required=True),
        user_option,
        click.option("--user-name", metavar="NAME", help="How people call that user."),
        click.option(
            "--timeout", type=click.FloatRange(0), default=TIMEOUT, show_default=True,
            help="Seconds to wait for the worker; 0: do not wait.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object per alert: the event."),
        log_data_option,
        config_option,
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@_sending
@click.option("--comment", metavar="TEXT", help="Added to the alert.")
def ack(comment: str | None, **options: Any) -> None:
    """Acknowledge ALERTs: you look after them."""
    _send(lambda who, now: Acknowledge(**who, comment=comment), **options)


@click.command()
@_sending
@click.option("--resolution", metavar="TEXT", required=True, help="How it was resolved.")
@click.option("--prevention", metavar="TEXT", help="What will keep it from happening again.")
def resolve(resolution: str, prevention: str | None, **options: Any) -> None:
    """Resolve ALERTs that somebody has acknowledged.

    If the condition still holds, its rule does not trigger again on the device before it was clear once.
    """
    _send(lambda who, now: Resolve(**who, resolution=resolution, preventionNotes=prevention), **options)


@click.command()
@_sending
@click.option("--text", metavar="TEXT", required=True, help="What to say.")
def comment(text: str, **options: Any) -> None:
    """Comment on ALERTs, those that are over too."""
    _send(lambda who, now: AddComment(**who, comment=text), **options)


@click.command()
@_sending
@click.option("--for", "length", metavar="TIME", help="So long, as in 90m or 2h.")
@click.option("--until", metavar="TIME", help="Until then, as in 2025-06-01T12:00.")
def snooze(length: str | None, until: str | None, **options: Any) -> None:
    """Tell nobody of ALERTs for a while, a week at the most."""
    if (length is None) == (until is None):
        raise ConfigError("say how long: --for 2h, or --until 2025-06-01T12:00")
    seconds = None if length is None else duration("--for", length)

    def make(who: dict[str, Any], now: int) -> Snooze:
        return Snooze(
            **who, until=moment("--until", until or "", now) if seconds is None else now + round(seconds * 1000)
        )

    _send(make, **options)


def _mistakes(error: ValidationError) -> Iterator[str]:
    """What is wrong with a command, by the options that it was made of."""
    for each in error.errors():
        name = str(each["loc"][-1]) if each["loc"] else ""
        of_text = (error.title, name) == (AddComment.__name__, "comment")
        yield f"{'--text' if of_text else _OPTIONS.get(name, name)}: {what_is_wrong(each)}"


def _send(
    make: Callable[[dict[str, Any], int], AlertCommand],
    *,
    alert_ids: tuple[str, ...],
    user: str,
    user_name: str | None,
    timeout: float,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None

    async def send() -> tuple[list[AlertCommand], dict[str, dict[str, Any]]]:
        async with opened_log(settings, data) as opened:
            known = await read_states(opened.log)
            found = [wrong.take(partial(alert_named, text, known)) for text in dict.fromkeys(alert_ids)]
            wrong.check()
            now, commands = await log_now_ms(opened.log, SystemClock()), []
            for alert in {each.alertId: each for each in found if each is not None}.values():
                who = {
                    "commandId": str(uuid.uuid4()), "alertId": alert.alertId, "deviceId": alert.deviceId,
                    "userId": user, "userName": user_name,
                }  # fmt: skip
                try:
                    commands.append(make(who, now))
                except ValidationError as error:
                    raise ConfigError(*_mistakes(error)) from None
            if timeout and opened.folder is not None and opened.worker() is None:
                click.echo("no worker runs on the data folder; the answer comes when one does", err=True)
            return commands, await send_commands(opened.log, commands, SystemClock(), timeout)

    commands, events = asyncio.run(send())
    refused = False
    for command in commands:
        event = events.get(command.commandId)
        if event is None:
            click.echo(f"{command.alertId}: sent", err=as_json)
            continue
        refused |= change_of(event) == "refused"
        if as_json:
            click.echo(orjson.dumps(event).decode())
        elif change_of(event) == "refused":
            click.echo(f"{command.alertId}: refused: {event['data']['reason']}", err=True)
        else:
            click.echo(f"{command.alertId}: {change_of(event)}")
    if refused:
        sys.exit(1)
