"""`headrace notify test`: tries whether messages reach somebody."""

import asyncio
import uuid
from collections.abc import Container, Sequence
from pathlib import Path
from typing import get_args

import click
import orjson

from headrace.agents.notifying.channels import contacts_of
from headrace.cli.opened_log import log_data_option, log_folder, opened_log
from headrace.cli.running import Mistakes, config_option, json_option
from headrace.cli.settings import Settings
from headrace.cli.users_import import read_user
from headrace.connectors.notifications.channels import open_channels
from headrace.connectors.notifications.content import make_renderer
from headrace.connectors.notifications.trial import Target, Tried, try_target
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.schemas import topics
from headrace.schemas.contacts import masked, masked_recipient, masked_text
from headrace.schemas.dead_contact import dead_contact_key
from headrace.schemas.notification import Reader
from headrace.schemas.rule import Channel
from headrace.schemas.text import near
from headrace.schemas.user import User
from headrace.tables.users import UserRegistry

PERSONAL: tuple[Channel, ...] = get_args(Channel)
#: What is missing where a channel is off.
_SWITCHES = {
    "email": "[channels.email] host",
    "push": "[channels.push] fcm_credentials or ntfy_url",
    "sms": "[channels.sms] enabled",
}
_SAID = {
    "sent": "taken",
    "later": "not taken, delivery would try again",
    "refused": "refused",
    "gone": "nothing reaches this contact",
}


@click.command(name="test")
@click.argument("who", metavar="WHO...", nargs=-1, required=True)
@click.option(
    "--channel", "wanted", type=click.Choice(PERSONAL), multiple=True, help="Only by this one; several may be."
)
@log_data_option
@config_option
@json_option
def try_(
    who: tuple[str, ...], wanted: tuple[Channel, ...], data: Path | None, config: Path | None, as_json: bool
) -> None:
    """Send a test message to WHO by the channels of [channels], and say what receivers answer.

    WHO is the id of a user, who gets it at all their contacts, or one contact: email:ADDRESS, sms:NUMBER,
    push:PLATFORM:TOKEN, webhook:ADDRESS, integration:NAME. It is sent at once and once, whatever preferences, quiet
    hours and caps say, and is not in the delivery log. Incidents that it opens, in PagerDuty and Alertmanager, it
    closes. Exit code 1 if somebody did not get it.
    """
    wrong = Mistakes()
    settings = wrong.take(lambda: load(Settings, config))
    if settings is not None:
        logging.configure(settings.log_level)
        if any(_contact(each) is None for each in who):
            wrong.take(lambda: log_folder(settings, data))
    wrong.check()
    assert settings is not None
    tried = asyncio.run(_try(settings, data, who, wanted or PERSONAL, bool(wanted)))
    if as_json:
        click.echo(orjson.dumps({"tried": [_document(each) for each in tried]}).decode())
    else:
        for each in tried:
            click.echo(_line(each))
    if any(each.status != "sent" for each in tried):
        raise SystemExit(1)


def _contact(who: str) -> tuple[str, str] | None:
    """Channel and contact; None for a user."""
    kind, colon, contact = who.partition(":")
    return (kind, contact) if colon and kind in (*PERSONAL, "webhook", "integration") else None


async def _try(
    settings: Settings, data: Path | None, who: Sequence[str], wanted: Sequence[Channel], chosen: bool
) -> list[Tried]:
    clock = SystemClock()
    renderer = make_renderer(settings.channels.model_copy(update={"dashboard_url": None, "acknowledge_url": None}))
    people = [each.removeprefix("user:") for each in who if _contact(each) is None]
    found, notes = await _people(settings, data, people) if people else ({}, [])
    async with open_channels(settings.channels, clock) as channels:
        targets, wrong = [], Mistakes()
        for each in who:
            try:
                contact = _contact(each)
                if contact is None:
                    user = found[each.removeprefix("user:")]
                    targets += _of_user(user, _usable(wanted, channels, chosen))
                else:
                    targets.append(_of_contact(settings, each, *contact))
            except ConfigError as error:
                for mistake in error.mistakes:
                    wrong.add(mistake)
        for channel in dict.fromkeys(each.channel for each in targets if each.channel not in channels):
            wrong.add(f"{_SWITCHES[channel]} is missing: nothing is sent by {channel}")
        wrong.check()
        for note in notes:
            click.echo(note, err=True)
        return [
            await try_target(each, channels[each.channel], renderer, f"test-{uuid.uuid4()}", clock.now_ms())
            for each in targets
        ]


async def _people(settings: Settings, data: Path | None, people: Sequence[str]) -> tuple[dict[str, User], list[str]]:
    """Users by id, and what else keeps messages from them.

    Raises:
        ConfigError: there is no such user.
    """
    async with opened_log(settings, data) as opened:
        stored = await UserRegistry(opened.log, SystemClock()).stored()
        known = {name: user for name in people if name in stored and (user := read_user(stored[name])) is not None}
        if missing := [name for name in people if name not in known]:
            raise ConfigError(*(f"there is no user {name!r}{near(name, stored)}" for name in missing))
        dead: set[bytes] = set()
        if topics.DEAD_CONTACTS in {spec.name for spec in await opened.log.topics()}:
            target = TopicPartition(topics.DEAD_CONTACTS, 0)
            dead = {key async for chunk in opened.log.restore(target) for key, value in chunk if value is not None}
    notes = []
    for name, user in known.items():
        if not user.active:
            notes.append(f"{name} is not active: alerts are not told to them")
        for channel in PERSONAL:
            contacts = contacts_of(user, channel)
            if contacts and not getattr(user.preferences.notifications, channel):
                notes.append(f"{name} has switched {channel} off: alerts go by it only where [notify] floor says so")
            for contact in contacts:
                if dead_contact_key(channel, contact) in dead:
                    notes.append(f"{name}: {masked(contact)} is disabled, see headrace notifications contacts")
    return known, notes


def _usable(wanted: Sequence[Channel], channels: Container[str], chosen: bool) -> list[Channel]:
    """Those that reach people; of the ones that were not chosen only what is configured.

    Raises:
        ConfigError: none is.
    """
    found = [each for each in wanted if chosen or each in channels]
    if not found:
        raise ConfigError(f"no channel reaches people: set one of {', '.join(_SWITCHES.values())} in --config")
    return found


def _of_user(user: User, wanted: Sequence[Channel]) -> list[Target]:
    reader = Reader(name=user.name, language=user.language, timezone=user.timezone, units=user.units)
    targets = [
        Target(f"user:{user.user_id}", channel, contact, reader, user.user_id)
        for channel in wanted
        for contact in contacts_of(user, channel)
    ]
    if not targets:
        raise ConfigError(
            f"{user.user_id} has no contact for {', '.join(wanted)}: set one with headrace users set {user.user_id} "
            "email=…"
        )
    return targets


def _of_contact(settings: Settings, who: str, kind: str, contact: str) -> Target:
    integrations = settings.channels.integrations
    if kind == "integration":
        if contact not in integrations:
            raise ConfigError(f"there is no [channels.integrations.{contact}]{near(contact, integrations)}")
        return Target(who, integrations[contact].kind, contact)
    if not contact:
        raise ConfigError(f"{who}: write the contact behind the colon")
    if kind == "webhook":
        return Target(who, "webhook", contact)
    channel = next(each for each in PERSONAL if each == kind)
    return Target(who, channel, contact)


def _line(tried: Tried) -> str:
    who = masked_recipient(tried.target.recipient) if tried.target.user_id or _named(tried) else ""
    contact = "" if _named(tried) else masked(tried.target.contact)
    said = _SAID[tried.status] + (f" ({tried.provider_id})" if tried.provider_id else "")
    said += f": {masked_text(tried.error)}" if tried.error else ""
    return f"{' '.join(filter(None, (who, tried.target.channel, contact)))}: {said}"


def _named(tried: Tried) -> bool:
    """Whether its contact is the name of an integration."""
    return tried.target.recipient.startswith("integration:")


def _document(tried: Tried) -> dict[str, str | None]:
    named = _named(tried)
    return {
        "to": tried.target.recipient if named or tried.target.user_id else None,
        "channel": tried.target.channel,
        "contact": tried.target.contact if named else masked(tried.target.contact),
        "status": tried.status,
        "providerId": tried.provider_id,
        "error": masked_text(tried.error) if tried.error else None,
    }
