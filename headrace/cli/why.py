"""`headrace why`: why somebody, or a system, was told of an alert, or was not."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from headrace.agents.notifying.settings import NotifySettings
from headrace.cli.agents import integrations_of
from headrace.cli.listing import printable
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option
from headrace.cli.why_lines import Line, document_of, local_times, shown
from headrace.cli.why_records import Found, find
from headrace.cli.why_story import Story
from headrace.schemas.contacts import masked_recipient
from headrace.schemas.notification import Reason
from headrace.tables.device_types import load_device_types


@click.command()
@click.argument("alert_id", metavar="ALERT")
@click.argument("who", metavar="USER")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@log_data_option
@config_option
def why(alert_id: str, who: str, as_json: bool, data: Path | None, config: Path | None) -> None:
    """Tell why USER was told of ALERT, or was not: every decision and delivery, in order.

    ALERT is an id, or the beginning of one. USER is the id of a person, `integration:NAME` or `webhook:URL`. Where
    nothing was decided about USER, it says what the rules say: the subscriptions, [notify], [channels] and the
    registries as they are now. See docs/guides/notifications.md.
    """
    recipient = who if who.startswith(("user:", "integration:", "webhook:")) else f"user:{who}"
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    types = wrong.take(lambda: load_device_types(settings.device_types)) if settings else None
    wrong.check()
    assert settings is not None
    assert types is not None

    async def run() -> Found:
        async with opened_log(settings, data) as opened:
            return await find(opened.log, alert_id, recipient, types, integrations_of(settings))

    show(asyncio.run(run()), masked_recipient(recipient), settings.notify, as_json=as_json)


def show(found: Found, recipient: str, settings: NotifySettings, *, as_json: bool) -> None:
    """Print the story.

    Args:
        recipient: as people may see it.
    """
    who = recipient.removeprefix("user:")
    story, alert = Story(found, settings), found.alert
    lines = story.lines()
    if as_json:
        about = ("alertId", "ruleId", "ruleName", "deviceId", "severity", "status")
        document = {
            "alert": {name: getattr(alert, name) for name in about},
            "recipient": recipient,
            "userId": None if found.system is not None else who,
            "timezone": story.zone.key,
            "told": story.told,
            "outcome": {channel: document_of(line, story.zone) for channel, line in story.outcome().items()},
            "story": [document_of(line, story.zone) for line in lines],
        }
        click.echo(orjson.dumps(document).decode())
        return
    device = f"{alert.deviceName} ({alert.deviceId})" if alert.deviceName else alert.deviceId
    name = f"{who} ({story.user.name})" if story.user and story.user.name else who
    click.echo(printable(f"{alert.ruleName} on {device}, {alert.severity}, {alert.status}: {alert.alertId}"))
    click.echo(printable(f"for {name}, times of {story.zone.key}"))
    click.echo()
    said: set[Reason] = set()  # why it concerns them is told once
    for line in _without_attempts(lines):
        click.echo(printable(f"{shown(story.zone, line.at_ms)}  {line.what}"))
        for reason in line.reasons:
            if line.channel is not None and reason in said:
                continue
            if line.channel is None:
                said.add(reason)
            click.echo(printable(f"    {reason.code}: {local_times(reason.text, story.zone)}"))
    click.echo()
    for channel, line in story.outcome().items():
        text = f" ({last})" if (last := _last_reason(line, story)) else ""
        click.echo(printable(f"{line.what if line.what.startswith(channel) else f'{channel}: {line.what}'}{text}"))
    if not story.told:
        click.echo(printable(f"{who} was sent nothing of it"))


def _without_attempts(lines: Sequence[Line]) -> list[Line]:
    """Without the beginnings of attempts of which the end is known."""
    ended = {_attempt(line) for line in lines if line.state is not None and line.state.status != "sending"}
    return [
        line for line in lines if line.state is None or line.state.status != "sending" or _attempt(line) not in ended
    ]


def _attempt(line: Line) -> object:
    state = line.state
    return state and (state.notificationId, state.contact, state.attempts)


def _last_reason(line: Line, story: Story) -> str:
    """Why it is so, where it is a decision."""
    if line.state is not None and line.state.status in ("sent", "delivered", "sending", "failed", "dead", "unknown"):
        return ""
    texts = [each.text for each in line.reasons if not each.text.startswith("it was ")]
    return local_times(texts[-1], story.zone) if texts else ""
