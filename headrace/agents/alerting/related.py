"""Alerts that may have to do with one another: of the same device, or behind the same gateway."""

from dataclasses import replace
from heapq import nsmallest

from headrace.agents.alerting.alert_table import AlertTable, Key, places_of
from headrace.agents.alerting.work import Changed, Work
from headrace.schemas.alert import MOST_RELATED, Alert, Related


def relate(work: Work, table: AlertTable) -> list[Changed]:
    """The changes of a batch in log order, those that are new with what was open when they triggered.

    Watchers find things device type by device type; what was open at a record does not depend on that.
    """
    ordered = sorted(work.changes, key=lambda each: each[:3])
    if not any(each.change == "triggered" for each in ordered):
        return ordered
    now: dict[Key, Alert | None] = {}
    near: dict[str, set[Key]] = {}
    found: dict[str, tuple[Related, ...]] = {}
    for place, changed in enumerate(ordered):
        alert = changed.alert
        key = (alert.ruleId, alert.deviceType, alert.deviceId)
        if changed.change == "triggered":
            found[alert.alertId] = _related(work, table, alert, now, near)
        if alert.alertId in found:
            alert = alert.model_copy(update={"relatedAlerts": found[alert.alertId]})
            ordered[place] = changed._replace(alert=alert)
        now[key] = None if alert.status == "resolved" else alert
        for device in places_of(alert):
            near.setdefault(device, set()).add(key)
    for key, standing in work.staged.items():
        if standing.alert is not None and standing.alert.alertId in found:
            alert = standing.alert.model_copy(update={"relatedAlerts": found[standing.alert.alertId]})
            work.set(key, replace(standing, alert=alert))
    return ordered


def _related(
    work: Work, table: AlertTable, alert: Alert, now: dict[Key, Alert | None], near: dict[str, set[Key]]
) -> tuple[Related, ...]:
    """What is open near an alert, the newest first.

    Args:
        now: what the batch has made of alerts so far; None if they are over.
        near: keys of those by device and gateway.
    """
    view = table.view(work.partition)
    keys = {key for device in places_of(alert) for key in (*table.near(work.partition, device), *near.get(device, ()))}
    open_now: list[Alert] = []
    for key in keys:
        if key in now:
            other = now[key]
        else:
            standing = view.get(key)
            other = standing.alert if standing is not None and standing.open else None
        if other is not None:
            open_now.append(other)
    return tuple(
        Related(
            alertId=each.alertId,
            ruleName=each.ruleName,
            deviceId=each.deviceId,
            deviceName=each.deviceName,
            triggeredAt=each.triggeredAt,
        )
        for each in nsmallest(MOST_RELATED, open_now, key=lambda each: (-each.triggeredAt, each.alertId))
    )
