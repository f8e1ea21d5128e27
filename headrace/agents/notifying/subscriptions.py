"""Whether an alert concerns somebody, and why or why not."""

from typing import NamedTuple

from headrace.schemas.alert import Alert
from headrace.schemas.notification import Code, Reason, Subject
from headrace.schemas.rule import Channel
from headrace.schemas.user import EVERY_DEVICE, Subscription, User

#: Subscriptions that an answer goes through one by one; of more it has the count.
MOST_TOLD = 5


class Match(NamedTuple):
    """Whether an alert concerns somebody.

    Args:
        fits: whether.
        reasons: why, or why not.
        channels: to which their subscriptions narrow it; None for all.
    """

    fits: bool
    reasons: tuple[Reason, ...]
    channels: frozenset[Channel] | None = None


def may_be_told(user: User, alert: Alert) -> Reason | None:
    """None if they are active and see the alert's device; otherwise why not."""
    if not user.active:
        return _reason("user-inactive", "is not active")
    mine, other = user.organization_id, alert.organizationId
    if mine == other or (mine is None and user.role == "super_admin"):
        return None
    whose = "a device of no organisation" if other is None else f"a device of organisation {other}"
    here = "no organisation" if mine is None else f"organisation {mine}"
    return _reason("other-organisation", f"belongs to {here}, and the alert is about {whose}")


def subscribed(user: User, subject: Subject) -> Match:
    """Whether somebody's subscriptions have an alert.

    One that fits is enough; where several do, they are told by the channels of each of them.
    """
    hindrance = may_be_told(user, subject.alert)
    if hindrance is not None:
        return Match(False, (hindrance,))
    preferences, device_id = user.preferences, subject.alert.deviceId
    reasons: list[Reason] = []
    channels: set[Channel] | None = set()
    if EVERY_DEVICE in preferences.subscribed_devices:
        reasons.append(_reason("subscribed", "subscribed to every device"))
        channels = None
    elif device_id in preferences.subscribed_devices:
        reasons.append(_reason("subscribed", f"subscribed to device {device_id}"))
        channels = None
    misses: list[str] = []
    for number, each in enumerate(preferences.subscriptions, 1):
        missed = _missed(each, subject)
        if missed is not None:
            misses.append(f"subscription {number}: {missed}")
            continue
        narrowed = "" if each.channels is None else f", by {', '.join(each.channels) or 'no channel'}"
        reasons.append(_reason("subscribed", f"subscription {number} has it: {_terms(each)}{narrowed}"))
        if each.channels is None:
            channels = None
        elif channels is not None:
            channels.update(each.channels)
    if reasons:
        return Match(True, tuple(reasons), None if channels is None else frozenset(channels))
    return Match(False, (_reason("not-subscribed", _why_not(user, device_id, misses)),))


def _missed(subscription: Subscription, subject: Subject) -> str | None:
    """The first field of a subscription that does not fit; None if all do."""
    alert = subject.alert
    gateway = f"gateway {alert.gatewayId}" if alert.gatewayId else "a device without gateway"
    fields: tuple[tuple[tuple[str, ...], set[str | None], str], ...] = (
        (subscription.device_ids, {alert.deviceId}, f"device {alert.deviceId}"),
        (subscription.device_types, {alert.deviceType}, f"device type {alert.deviceType}"),
        (subscription.gateway_ids, {alert.deviceId, alert.gatewayId}, gateway),
        (subscription.rule_ids, {alert.ruleId}, f"rule {alert.ruleId}"),
        (subscription.tags, set(subject.place.tags), "a device without its tags"),
        (subscription.severities, {alert.severity}, f"{alert.severity} alerts"),
    )
    return next((f"not for {what}" for wanted, has, what in fields if wanted and has.isdisjoint(wanted)), None)


def _why_not(user: User, device_id: str, misses: list[str]) -> str:
    devices = user.preferences.subscribed_devices
    if not devices and not misses:
        return "has no subscriptions"
    said = [f"device {device_id} is not among the {len(devices):,} subscribed ones"] if devices else []
    more = [f"and {len(misses) - MOST_TOLD:,} more do not fit"] if len(misses) > MOST_TOLD else []
    return "; ".join([*said, *misses[:MOST_TOLD], *more])


def _terms(subscription: Subscription) -> str:
    named = (
        ("devices", subscription.device_ids),
        ("types", subscription.device_types),
        ("gateways", subscription.gateway_ids),
        ("rules", subscription.rule_ids),
        ("tags", subscription.tags),
        ("severities", subscription.severities),
    )
    said = (f"{name} {', '.join(values[:3])}{', …' if len(values) > 3 else ''}" for name, values in named if values)
    return "; ".join(said) or "all alerts"


def _reason(code: Code, text: str) -> Reason:
    return Reason(code=code, text=text)
