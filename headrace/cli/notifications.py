"""`headrace notifications`: what became of notifications."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import orjson
from rich.text import Text

from headrace.cli.delivery_log import Chosen, dead_letter_of, events_of, known_states, row_named
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.masked import masked_contact, masked_state
from headrace.cli.moments import iso_ms, moment
from headrace.cli.opened_log import OpenedLog, load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option
from headrace.connectors.notifications.state_changes import StoredState, send_again
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from headrace.schemas.contacts import masked_text
from headrace.schemas.dead_contact import DeadContact
from headrace.schemas.notification import Channel, Status

#: Rows that are listed unless told otherwise.
LIMIT = 50
Result = TypeVar("Result")


@click.group()
def notifications() -> None:
    """Notifications: list what was sent to whom, and what not; show one; send dead ones again.

    It works beside whatever delivers. An id may be shortened, as long as no other begins so. See
    docs/guides/notification-delivery.md.
    """


@notifications.command(name="list")
@click.option("--status", type=click.Choice(get_args(Status)), help="That have come to this.")
@click.option("--channel", type=click.Choice(get_args(Channel)), help="Of this channel.")
@click.option("--user", metavar="ID", help="To this user, or recipient, as in integration:ops.")
@click.option("--alert", metavar="ID", help="About this alert.")
@click.option("--device", metavar="ID", help="About this device.")
@click.option("--since", metavar="TIME", help="Decided at TIME or later: ISO 8601, or a time ago such as 2h.")
@click.option("--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="The newest; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def list_(since: str | None, limit: int, as_json: bool, data: Path | None, config: Path | None, **options: Any) -> None:
    """List the newest state of each message, the newest decision first. Options that choose go together."""
    wrong = Mistakes()
    now = SystemClock().now_ms()
    since_ms = None if since is None else wrong.take(lambda: moment("--since", since, now))
    chosen = Chosen(**options, since_ms=since_ms)
    known = _with_log(config, data, _known, wrong)
    found = [masked_state(row.state) for row in known.values() if chosen.has(row.state)]
    found.sort(key=lambda state: (-state.decidedAt, state.notificationId, state.contact or ""))
    shown = found[: limit or None]
    if as_json:
        for state in shown:
            click.echo(state.model_dump_json(exclude_none=True))
        return
    table = listing(
        "notification", "decided", "status", "channel", "to", "about", "attempts", "why", right=("attempts",)
    )
    for state in shown:
        why = state.error or (state.reasons[-1].text if state.reasons and state.status in ("dropped", "held") else "")
        cells = (
            state.notificationId, iso_ms(state.decidedAt), state.status, state.channel or "",
            state.userId or state.recipient, f"{state.kind} {state.deviceId}", str(state.attempts), why,
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    show_listing(table)
    if len(shown) < len(found):
        click.echo(f"{len(shown):,} of {len(found):,} messages; --limit 0 shows all", err=True)


@notifications.command()
@click.argument("notification_id", metavar="NOTIFICATION")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def show(notification_id: str, as_json: bool, data: Path | None, config: Path | None) -> None:
    """Show all of a NOTIFICATION: why it was sent, and every attempt, as far as the log has it."""

    async def read(opened: OpenedLog) -> tuple[StoredState, Any]:
        row = row_named(notification_id, (await _known(opened)).values())
        return row, await events_of(opened.log, row)

    row, events = _with_log(config, data, read)
    state = masked_state(row.state)
    if as_json:
        document = orjson.loads(state.model_dump_json(exclude_none=True))
        happened = [
            {"time": each.time, "status": each.data.status, "error": each.data.error and masked_text(each.data.error)}
            for each in events
        ]
        click.echo(orjson.dumps({**document, "events": happened}).decode())
        return
    table = listing("", "", header=False)
    for name, value in orjson.loads(state.model_dump_json(exclude_none=True, exclude={"reasons"})).items():
        text = iso_ms(value) if name.endswith("At") else ", ".join(value) if isinstance(value, list) else str(value)
        if text:
            table.add_row(name, Text(printable(text)))
    for reason in state.reasons:
        table.add_row("reason", Text(printable(f"{reason.code}: {reason.text}")))
    for each in events:
        what = f"{each.time} {each.data.status}" + (f" ({each.data.attempts})" if each.data.attempts else "")
        error = masked_text(each.data.error or "")
        table.add_row("event", Text(printable(f"{what}: {error}" if error else what)))
    show_listing(table)


@notifications.command()
@click.argument("ids", metavar="NOTIFICATION...", nargs=-1, required=True)
@log_data_option
@config_option
def retry(ids: tuple[str, ...], data: Path | None, config: Path | None) -> None:
    """Send dead NOTIFICATIONs again, with the key that they had: whoever delivers takes them up."""

    async def send(opened: OpenedLog) -> list[str]:
        known = await _known(opened)
        letters = []
        for each in ids:
            row = row_named(each, known.values())
            if row.state.status != "dead":
                raise ConfigError(f"{row.key.decode()} is {row.state.status}: only what is dead can be sent again")
            letter = await dead_letter_of(opened.log, row)
            if letter is None:
                raise ConfigError(
                    f"{row.key.decode()} is in no dead letter: it was sent and came back, or the log has let go of it"
                )
            letters.append((row, letter))
        for _, letter in letters:
            await send_again(opened.log, letter, SystemClock().now_ms())
        return [row.key.decode() for row, _ in letters]

    for name in _with_log(config, data, send):
        click.echo(f"{name} is in the outbox again")


@notifications.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@log_data_option
@config_option
def contacts(as_json: bool, data: Path | None, config: Path | None) -> None:
    """List contacts that nothing is sent to any more, as nothing reaches them; a change of the user enables them.

    They are shown in part; `headrace users show` has a user's.
    """

    async def read(opened: OpenedLog) -> list[DeadContact]:
        if topics.DEAD_CONTACTS not in {spec.name for spec in await opened.log.topics()}:
            return []
        target = TopicPartition(topics.DEAD_CONTACTS, 0)
        return [
            DeadContact.model_validate_json(value, extra="ignore")
            async for chunk in opened.log.restore(target)
            for _, value in chunk
        ]

    found = [masked_contact(each) for each in sorted(_with_log(config, data, read), key=lambda each: -each.at)]
    if as_json:
        for each in found:
            click.echo(each.model_dump_json(exclude_none=True))
        return
    table = listing("contact", "channel", "whose", "since", "why")
    for each in found:
        cells = each.contact, each.channel, each.userId or each.recipient, iso_ms(each.at), each.reason
        table.add_row(*(Text(printable(cell)) for cell in cells))
    show_listing(table)


async def _known(opened: OpenedLog) -> dict[bytes, StoredState]:
    return await known_states(opened.log) or {}


def _with_log(
    config: Path | None,
    data: Path | None,
    work: Callable[[OpenedLog], Awaitable[Result]],
    wrong: Mistakes | None = None,
) -> Result:
    wrong = wrong or Mistakes()
    settings = load_settings(wrong, config, data)
    wrong.check()
    assert settings is not None

    async def run() -> Result:
        async with opened_log(settings, data) as opened:
            return await work(opened)

    return asyncio.run(run())
