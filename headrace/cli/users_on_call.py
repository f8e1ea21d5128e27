"""`headrace users oncall` and `escalate`: who is on call, and who is told when."""

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args
from zoneinfo import ZoneInfo

import click
import orjson
from rich.text import Text

from headrace.agents.notifying.channels import choose
from headrace.agents.notifying.clock_changes import wall
from headrace.agents.notifying.escalation import Due, due, people, step_of, steps_of
from headrace.agents.notifying.ics import ics
from headrace.agents.notifying.on_call import on_call, on_until
from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.agents.notifying.settings import Escalation, NotifySettings, Step
from headrace.agents.notifying.subscriptions import Match, subscribed
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import moment
from headrace.cli.opened_log import load_settings, log_data_option, opened_log
from headrace.cli.running import Mistakes, config_option
from headrace.cli.settings import Settings
from headrace.cli.users_import import read_user
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.schemas.alert import Alert
from headrace.schemas.device import Device, decode_device
from headrace.schemas.notification import Kind, Place, Subject
from headrace.schemas.rule import Channel, Severity
from headrace.schemas.text import near
from headrace.schemas.user import User
from headrace.schemas.window import known_zone
from headrace.tables.devices import DeviceRegistry
from headrace.tables.users import UserRegistry

#: Steps that are shown unless told otherwise.
STEPS = 50

_at_option = click.option("--at", metavar="TIME", help="ISO 8601, or a time ago such as 2h. Default: now.")
_zone_option = click.option(
    "--timezone", metavar="ZONE", default="UTC", help="IANA name, of times without offset and of those shown."
)


class _Seen(NamedTuple):
    """What is looked at: the settings, the users, and the device if one is named."""

    settings: NotifySettings
    users: list[User]
    device: Device | None = None


class _Line(NamedTuple):
    """One person of one step.

    Args:
        step: 0 for who is told at once.
        at_ms: ms since 1970 UTC.
        whom: the step tells.
        user: None if there is nobody.
        by: channels.
        held_until: end of their quiet hours, ms since 1970 UTC.
        note: why not, or by whom.
    """

    step: int
    at_ms: int
    whom: str
    user: User | None
    by: tuple[Channel, ...] = ()
    held_until: int | None = None
    note: str = ""


@click.command(name="oncall")
@click.argument("team")
@_at_option
@_zone_option
@click.option("--ics", "as_calendar", is_flag=True, help="All shifts of the team as a calendar (iCalendar).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per person.")
@log_data_option
@config_option
def on_call_command(
    team: str,
    at: str | None,
    timezone: str,
    as_calendar: bool,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """Who is on call for TEAM, and until when."""
    settings, zone, at_ms = _asked(config, data, at, timezone)
    users = asyncio.run(_seen(settings, data)).users
    teams = sorted({shift.team for user in users for shift in user.on_call})
    if team not in teams:
        there = f"; there are {', '.join(teams)}" if teams else ""
        raise ConfigError(f"nobody has a shift for a team {team!r}{near(team, teams)}{there}")
    if as_calendar:
        click.echo(ics(users, team).encode(), nl=False)
        return
    found = on_call(users, team, at_ms)
    if as_json:
        for user in found:
            line = {"userId": user.user_id, "name": user.name, "email": user.email, "phone": user.phone}
            ends = on_until(user, team, at_ms)
            click.echo(orjson.dumps({**line, "active": user.active, "at": at_ms, "until": ends}))
        return
    table = listing("id", "name", "email", "phone", "until", "")
    for user in found:
        cells = (user.user_id, user.name, user.email, user.phone)
        until = _shown(on_until(user, team, at_ms) or at_ms, zone)
        table.add_row(*(Text(printable(cell or "")) for cell in cells), until, "" if user.active else "not active")
    if found:
        show_listing(table)
    else:
        click.echo(f"nobody is on call for {team} at {_shown(at_ms, zone)}", err=True)


@click.command()
@click.option("--severity", type=click.Choice(get_args(Severity)), default="critical", help="Default: critical.")
@click.option("--device", "device_id", metavar="ID", help="Of the alert: the registry says whose it is, and its tags.")
@click.option("--organisation", metavar="NAME", help="Whose the device is, if none is named.")
@click.option("--rule", "rule_id", metavar="ID", default="-", help="Of the alert, for subscriptions by rule.")
@_at_option
@_zone_option
@click.option("--limit", type=click.IntRange(min=0), default=STEPS, help=f"So many steps. Default: {STEPS}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per step and person.")
@log_data_option
@config_option
def escalate(
    severity: Severity,
    device_id: str | None,
    organisation: str | None,
    rule_id: str,
    at: str | None,
    timezone: str,
    limit: int,
    as_json: bool,
    data: Path | None,
    config: Path | None,
) -> None:
    """Who would be told, when and by what, if an alert triggered and nobody acknowledged it.

    With the users, shifts and settings of now. Caps are not looked at: they go by what was sent before.
    """
    settings, zone, at_ms = _asked(config, data, at, timezone)
    seen = asyncio.run(_seen(settings, data, device_id))
    subject = _subject(severity, seen.device, device_id, organisation, rule_id, at_ms)
    policy = steps_of(subject.alert, seen.settings)
    lines = list(_lines(seen, subject, policy, at_ms, limit))
    if as_json:
        for line in lines:
            click.echo(orjson.dumps(_document(line)))
        return
    table = listing("step", "at", "whom", "user", "by", "", right=("step",))
    for line in lines:
        held = "" if line.held_until is None else f"held until {_shown(line.held_until, zone)}"
        user = "nobody" if line.user is None else printable(line.user.user_id)
        by = ", ".join(line.by) or "-"
        note = "; ".join(filter(None, [held, line.note]))
        table.add_row(str(line.step), _shown(line.at_ms, zone), Text(line.whom), Text(user), by, Text(note))
    show_listing(table)
    if policy is None:
        whose = subject.alert.organizationId
        click.echo(f"no escalation is for {severity} alerts{f' of {whose}' if whose else ''}", err=True)


def _asked(config: Path | None, data: Path | None, at: str | None, timezone: str) -> tuple[Settings, ZoneInfo, int]:
    """The settings, and the moment that is asked for in its zone.

    Raises:
        ConfigError: every mistake in any of it.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data)
    now_ms = SystemClock().now_ms()
    zone, at_ms = None, now_ms
    try:
        zone = ZoneInfo(known_zone(timezone))
    except ValueError as error:
        wrong.add(f"--timezone: {error}")
    if at is not None:
        at_ms = wrong.take(lambda: moment("--at", _with_offset(at, zone or ZoneInfo("UTC")), now_ms)) or 0
    wrong.check()
    assert settings is not None
    assert zone is not None
    return settings, zone, at_ms


def _with_offset(text: str, zone: ZoneInfo) -> str:
    """A time without offset with that of the zone; anything else as it is."""
    if not re.match(r"\d{4}-", text.strip()):
        return text
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return text
    return text if found.tzinfo else found.replace(tzinfo=zone).isoformat()


async def _seen(settings: Settings, data: Path | None, device_id: str | None = None) -> _Seen:
    async with opened_log(settings, data) as opened:
        stored = await UserRegistry(opened.log, SystemClock()).stored()
        devices = {} if device_id is None else await DeviceRegistry(opened.log, SystemClock()).stored()
    device = None
    if device_id is not None:
        if device_id not in devices:
            raise ConfigError(f"--device: there is no device {device_id!r} in the registry{near(device_id, devices)}")
        device = decode_device(devices[device_id])
    found = (read_user(stored[name]) for name in sorted(stored))
    return _Seen(settings.notify, [user for user in found if user is not None], device)


def _subject(
    severity: Severity, device: Device | None, device_id: str | None, organisation: str | None, rule_id: str, at_ms: int
) -> Subject:
    """An alert as it would be."""
    alert = Alert(
        alertId="simulated", revision=1, ruleId=rule_id, ruleName=rule_id, deviceId=device_id or "-",
        organizationId=device.organisation if device else organisation, gatewayId=device.gateway if device else None,
        deviceType=(device.type if device else None) or "-", severity=severity, status="triggered", condition="-",
        metric="-", triggeredAt=at_ms, groupKey="-",
    )  # fmt: skip
    return Subject(alert=alert, place=Place(tags=device.tags if device else ()))


def _lines(seen: _Seen, subject: Subject, policy: Escalation | None, at_ms: int, most_steps: int) -> Iterator[_Line]:
    now = [(user, match) for user in seen.users if (match := subscribed(user, subject)).fits]
    yield from _told(seen, subject, Due(0, at_ms), None, sorted(now, key=lambda pair: pair[0].user_id))
    step = 0
    while policy is not None and step < most_steps and (next_one := due(policy, at_ms, step)) is not None:
        step, what = next_one.step, step_of(policy, next_one.step)
        yield from _told(seen, subject, next_one, what, people(what, seen.users, subject, next_one.at_ms))


def _told(
    seen: _Seen, subject: Subject, when: Due, step: Step | None, found: list[tuple[User, Match]]
) -> Iterator[_Line]:
    whom = "subscribers" if step is None else step.whom
    kind: Kind = "alert" if step is None else "escalation"
    if not found:
        yield _Line(when.step, when.at_ms, whom, None)
    for user, match in found:
        if not match.fits:
            yield _Line(when.step, when.at_ms, whom, user, note=match.reasons[-1].text)
            continue
        choices = choose(user, subject, kind, match, seen.settings, step.channels if step else None)
        by = tuple(each.channel for each in choices if each.send)
        note = "" if by else "; ".join(each.reasons[-1].text for each in choices)
        held = quiet_until(user, subject.alert.severity, when.at_ms) if by else None
        yield _Line(when.step, when.at_ms, whom, user, by, held, note)


def _document(line: _Line) -> dict[str, Any]:
    return {
        "step": line.step,
        "at": line.at_ms,
        "whom": line.whom,
        "userId": line.user.user_id if line.user else None,
        "channels": list(line.by),
        "heldUntil": line.held_until,
        "note": line.note,
    }


def _shown(at_ms: int, zone: ZoneInfo) -> str:
    return f"{wall(zone, at_ms):%Y-%m-%d %H:%M:%S %Z}"
