"""What every command of `headrace rules` works with: the rules there are, and a way to save others."""

import getpass
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from headrace.cli.moments import iso_ms
from headrace.cli.opened_log import OpenedLog, load_settings, opened_log
from headrace.cli.running import Mistakes
from headrace.cli.settings import Settings
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError
from headrace.schemas.device import decode_device
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.devices import DeviceRegistry
from headrace.tables.known_rules import MOST_BYTES, KnownRule, RuleRegistry, is_same, no_rule, stamped
from headrace.tables.rule_book import encode_rule
from headrace.tables.rule_doubts import rule_doubts
from headrace.tables.rules import check_document, check_rules, load_rules, read_rules

#: No record has an append time before this, ms: a change that applies from so early applies to all.
_NO_TIME = 86_400_000
#: Rules that are shown one by one; and devices that are looked into for their organisations.
MOST_SHOWN, MOST_DECODED = 20, 100_000


def system_user() -> str:
    """Who runs this, as the system says.

    Raises:
        ConfigError: it does not say.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigError("--user is missing: this system does not say who you are") from None


user_option = click.option(
    "--user", default=system_user, metavar="ID", help="Who saves it. Default: the system's user."
)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a change did.

    Args:
        added, changed, unchanged, purged: rule ids.
        rules: those added and changed, as they are now.
        notes: what is doubtful about them.
        applies_from: append time from which it applies, ms since 1970 UTC; None: nothing was changed.
        dry_run: nothing was, it only would be.
    """

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    unchanged: Sequence[str] = ()
    purged: Sequence[str] = ()
    rules: Sequence[AlertRule] = ()
    notes: Sequence[str] = ()
    applies_from: int | None = None
    dry_run: bool = False

    def json(self) -> str:
        """One JSON object."""
        told: dict[str, Any] = {name: list(getattr(self, name)) for name in ("added", "changed", "unchanged", "purged")}
        told["rules"] = [document_of(rule) for rule in self.rules]
        told["notes"] = list(self.notes)
        told["appliesFrom"] = None if self.applies_from is None else iso_ms(self.applies_from)
        return orjson.dumps({**told, "dryRun": self.dry_run}).decode()

    def text(self) -> str:
        """For a person."""
        would = "would be " if self.dry_run else ""
        lines = [f"{rule.rule_id}: {rule.condition}; {rule.severity}, {rule.status}" for rule in self.rules]
        if len(lines) > MOST_SHOWN:
            lines = [*lines[:MOST_SHOWN], f"… and {len(lines) - MOST_SHOWN:,} more"]
        lines += [f"{rule_id}: nothing is kept of it" for rule_id in self.purged]
        if not self.purged:
            counts = f"{len(self.added):,} {would}added, {len(self.changed):,} {would}changed"
            lines.append(f"{counts}, {len(self.unchanged):,} unchanged")
        if self.applies_from is not None:
            first = self.applies_from < _NO_TIME
            when = "all messages: none has come yet" if first else f"messages from {iso_ms(self.applies_from)} on"
            lines.append(f"applies to {when}")
        return "\n".join(lines)


class RulesSession:
    """The rules of an installation, for as long as its log is open.

    Args:
        settings: of the installation.
        data: its data folder, if it has one.
        types: device types by name.
        rules: those of the configuration.
        opened: its log.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path | None,
        types: Mapping[str, DeviceType],
        rules: Sequence[AlertRule],
        opened: OpenedLog,
    ) -> None:
        self.settings = settings
        self.data = data
        self.types = types
        self.opened = opened
        self._detectors = settings.detect.detectors
        self._rules = rules
        self._clock = SystemClock()
        self._registry = RuleRegistry(opened.log, self._clock)

    async def known(self) -> tuple[dict[str, KnownRule], list[str]]:
        """See `RuleRegistry.known`."""
        return await self._registry.known(self._rules, self.settings.alert.rules)

    def read(self, file: Path) -> tuple[AlertRule, ...]:
        """The rules of a file, checked.

        Raises:
            ConfigError: every mistake in it.
        """
        found = read_rules(file, self.types, self._detectors)
        if found.mistakes:
            raise ConfigError(*found.mistakes)
        if not found.rules:
            raise ConfigError(f"{file} holds no rules: write [[rule]] tables, or JSON")
        return found.rules

    def read_if_file(self, target: str) -> Sequence[AlertRule]:
        """The rules of a file, as `read`; none if `target` is no file."""
        return self.read(Path(target)) if Path(target).is_file() else ()

    def checked(self, document: object) -> tuple[AlertRule | None, list[str]]:
        """See `headrace.tables.rules.check_document`."""
        return check_document(document, self.types, self._detectors)

    def check(self, rules: Iterable[AlertRule]) -> None:
        """See `headrace.tables.rules.check_rules`; only what is evaluated must be right."""
        check_rules([rule for rule in rules if rule.status == "active"], self.types, self._detectors)

    async def notes(self, rules: Iterable[AlertRule]) -> list[str]:
        """What is allowed about rules and probably not meant; see `headrace.tables.rule_doubts`."""
        rules = list(rules)
        devices: dict[str, bytes] = {}
        if any(rule.device_ids or rule.organization_id for rule in rules):
            devices = await DeviceRegistry(self.opened.log, self._clock).stored()
        organisations = None
        if any(rule.organization_id for rule in rules) and len(devices) <= MOST_DECODED:
            organisations = {each for value in devices.values() if (each := decode_device(value).organisation)}
        return [
            f"rule {rule.rule_id}: {doubt}"
            for rule in rules
            for doubt in rule_doubts(rule, self.types, devices, organisations)
        ]

    async def save(
        self, rules: Mapping[str, AlertRule], known: Mapping[str, KnownRule], user: str, *, dry_run: bool = False
    ) -> Saved:
        """Write the rules that differ from what is known; all in one step."""
        now_ms = self._clock.now_ms()
        before = {rule_id: known[rule_id].rule for rule_id in rules if rule_id in known}
        changed = {
            rule_id: stamped(rule, before.get(rule_id), user, now_ms)
            for rule_id, rule in rules.items()
            if rule_id not in before or not is_same(rule, before[rule_id])
        }
        largest = min(MOST_BYTES, self.opened.log.largest_value)
        if large := [each for each in changed.values() if len(encode_rule(each)) > largest]:
            raise ConfigError(
                *(
                    f"rule {each.rule_id} is {len(encode_rule(each)):,} bytes, and may be {largest:,}: "
                    "name fewer device_ids, or give the devices a type or organisation of their own"
                    for each in large
                )
            )
        notes = await self.notes(changed.values())
        applies = await self._registry.change(changed) if changed and not dry_run else None
        return Saved(
            added=[each for each in changed if each not in before],
            changed=[each for each in changed if each in before],
            unchanged=[each for each in rules if each not in changed],
            rules=list(changed.values()),
            notes=notes,
            applies_from=applies,
            dry_run=dry_run,
        )

    async def purge(self, rule_ids: Sequence[str]) -> Saved:
        """Take rules out of the topic.

        Raises:
            ConfigError: they are not in it.
        """
        stored = await self._registry.stored()
        in_file = {rule.rule_id for rule in self._rules}
        missing = [each for each in rule_ids if each not in stored]
        if missing:
            raise ConfigError(
                *(
                    f"rule {each!r} is in the configuration alone: delete it there, or here without --purge"
                    if each in in_file
                    else no_rule(each, stored)
                    for each in missing
                )
            )
        return Saved(purged=rule_ids, applies_from=await self._registry.change(dict.fromkeys(rule_ids)))


@asynccontextmanager
async def rules_session(config: Path | None, data: Path | None, *, make: bool = False) -> AsyncIterator[RulesSession]:
    """A session on the log of the settings, or of the data folder.

    Args:
        make: make an embedded log that is not there yet.
    Raises:
        ConfigError: every mistake in the configuration and what it names.
    """
    wrong = Mistakes()
    settings = load_settings(wrong, config, data, make=make)
    types = wrong.take(lambda: load_device_types(settings.device_types)) if settings else None
    rules = wrong.take(lambda: load_rules(settings.alert.rules)) if settings else None
    wrong.check()
    assert settings is not None
    assert types is not None
    assert rules is not None
    async with opened_log(settings, data, make=make) as opened:
        yield RulesSession(settings, data, types, rules, opened)


def document_of(rule: AlertRule) -> dict[str, Any]:
    """The rule in JSON, without what is at its default; with what people ask for all the same."""
    document = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if rule.flapping is None:
        document["flapping"] = None
    always = {"deviceType": rule.device_type, "severity": rule.severity, "status": rule.status}
    return {**document, **always, "cooldownPeriod": rule.cooldown_period}
