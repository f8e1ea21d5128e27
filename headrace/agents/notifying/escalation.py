"""Who is told next as long as nobody acknowledges an alert, and when. Whether somebody has, the caller knows."""

from collections.abc import Iterable
from typing import NamedTuple

from headrace.agents.notifying.on_call import on_call
from headrace.agents.notifying.settings import Escalation, NotifySettings, Step
from headrace.agents.notifying.subscriptions import Match, may_be_told, subscribed
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Reason, Subject
from headrace.schemas.user import User


class Due(NamedTuple):
    """A step that is to come.

    Args:
        step: its number, from 1; it goes on over repeats. `step_of` says what it is.
        at_ms: when, ms since 1970 UTC.
    """

    step: int
    at_ms: int


def steps_of(alert: Alert, settings: NotifySettings) -> Escalation | None:
    """The first policy that fits an alert; None if none does."""
    for policy in settings.escalations:
        organisations = policy.organization_ids
        if alert.severity in policy.severities and (not organisations or alert.organizationId in organisations):
            return policy
    return None


def due(policy: Escalation, triggered_ms: int, done_step: int) -> Due | None:
    """The step after `done_step`, and when; None if that was the last one.

    Args:
        triggered_ms: from when on the steps count, ms since 1970 UTC.
        done_step: number of the last one that was carried out; 0 for none.
    """
    each = len(policy.steps)
    if done_step >= each * (policy.repeat + 1):
        return None
    step = done_step + 1
    rounds, rest = divmod(step, each)
    waits = [one.after_ms for one in policy.steps]
    return Due(step, triggered_ms + rounds * sum(waits) + sum(waits[:rest]))


def step_of(policy: Escalation, step: int) -> Step:
    """The step with this number, from 1."""
    return policy.steps[(step - 1) % len(policy.steps)]


def people(step: Step, users: Iterable[User], subject: Subject, at_ms: int) -> list[tuple[User, Match]]:
    """Whom a step tells at a moment, in the order of their ids, with why.

    Of a team and of users there are also those who are not to be told, with why not: inactive ones, and those of
    another organisation.
    """
    if step.subscribers:
        found = [(user, subscribed(user, subject)) for user in users]
        return sorted(((user, match) for user, match in found if match.fits), key=_by_id)
    if step.team is not None:
        chosen, why = on_call(users, step.team, at_ms), f"on call for {step.team}"
    else:
        chosen, why = [user for user in users if user.user_id in step.users], "named by the escalation's step"
    return sorted(((user, _match(user, subject, why)) for user in chosen), key=_by_id)


def reminder(settings: NotifySettings, acknowledged_ms: int, reminded: int) -> int | None:
    """When to tell again of an alert that was acknowledged and is not over; None: never.

    Args:
        acknowledged_ms: when it was acknowledged, ms since 1970 UTC.
        reminded: times that it was told again since then, count.
    """
    return None if settings.reminder_ms is None else acknowledged_ms + (reminded + 1) * settings.reminder_ms


def _match(user: User, subject: Subject, why: str) -> Match:
    hindrance = may_be_told(user, subject.alert)
    reason = Reason(code="on-call", text=why)
    return Match(True, (reason,)) if hindrance is None else Match(False, (reason, hindrance))


def _by_id(pair: tuple[User, Match]) -> str:
    return pair[0].user_id
