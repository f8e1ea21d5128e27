"""The alert rules of an installation with where each comes from, and how commands change them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.schemas.text import near
from headrace.tables.live_registry import LiveRegistry
from headrace.tables.rule_book import encode_rule
from headrace.tables.rules import read_rule

#: What a person decides about a rule; the rest says when and by whom.
STAMPS = frozenset({"created_by", "created_at", "updated_at"})
#: Bytes of a rule: any Kafka takes so many in a record.
MOST_BYTES = 1_000_000
#: What rules that nobody configured come from.
SHIPPED = "shipped"


class KnownRule(NamedTuple):
    """A rule, and where it comes from: "topic", "shipped" or a file, or "topic, in the place of" one of these."""

    rule: AlertRule
    source: str


class RuleRegistry(LiveRegistry[AlertRule]):
    """Reads and changes the topic `rules`; see `LiveRegistry` for when a change applies.

    Args:
        log: where the topic is, or will be.
        clock: real time.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        super().__init__(log, topics.RULES, encode_rule, clock)

    async def known(self, rules: Sequence[AlertRule], file: Path | None) -> tuple[dict[str, KnownRule], list[str]]:
        """Every rule by id, those of the file first; and what is wrong with values of the topic that are none.

        Args:
            rules: those of the file.
            file: which; None for the shipped rules.
        """
        origin = SHIPPED if file is None else str(file)
        found = {rule.rule_id: KnownRule(rule, origin) for rule in rules}
        mistakes: list[str] = []
        for key, value in sorted((await self.stored()).items()):
            try:
                rule = read_rule(value)
            except ConfigError as error:
                mistakes += [f"topic {topics.RULES}, rule {key}: {mistake}" for mistake in error.mistakes]
                continue
            source = f"topic, in the place of {origin}" if key in found else "topic"
            found[key] = KnownRule(rule.model_copy(update={"rule_id": key}), source)
        return found, mistakes


def stamped(rule: AlertRule, before: AlertRule | None, user: str, now_ms: int) -> AlertRule:
    """The rule as it is saved: made by whom, and when; changed now.

    Args:
        before: what it replaces; what that says of its making stays.
        user: who saves it.
    """
    made = before or rule
    return rule.model_copy(
        update={
            "created_by": made.created_by or user,
            "created_at": made.created_at or now_ms,
            "updated_at": now_ms,
        }
    )


def is_same(one: AlertRule, other: AlertRule) -> bool:
    """Whether two rules differ in nothing but their stamps."""
    return one.model_dump(exclude=set(STAMPS)) == other.model_dump(exclude=set(STAMPS))


def rule_named(rule_id: str, known: Mapping[str, KnownRule]) -> KnownRule:
    """The rule with this id.

    Raises:
        ConfigError: there is none; with the one that was probably meant.
    """
    if rule_id not in known:
        raise ConfigError(no_rule(rule_id, known))
    return known[rule_id]


def no_rule(rule_id: str, known: Collection[str]) -> str:
    """That there is no such rule, and what to do."""
    hint = near(rule_id, known)
    return f"there is no rule {rule_id!r}{hint or '; headrace rules list --all shows those there are'}"
