"""Moments at which watchers have to look at a rule and device again although nothing came."""

from heapq import heapify, heappop, heappush

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.standing import Standing
from headrace.schemas.rule import AlertRule


class Timers:
    """The next moment per rule and device, ms. About 300 bytes each; setting one takes O(log n)."""

    def __init__(self) -> None:
        self._due: dict[Key, int] = {}
        #: With moments that were replaced, which are dropped when they come up.
        self._heap: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: Key) -> bool:
        return key in self._due

    def set(self, key: Key, due: int | None) -> None:
        """The next moment of a key; None for never."""
        if due is None:
            self._due.pop(key, None)
        elif self._due.get(key) != due:
            self._due[key] = due
            heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(due, key) for key, due in self._due.items()]
            heapify(self._heap)

    def pop(self, now: float) -> tuple[int, Key] | None:
        """The first moment before `now`, and whose; it is no more. None if there is none."""
        while self._heap and self._heap[0][0] < now:
            due, key = heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                return due, key
        return None


def look_again(rule: AlertRule, standing: Standing, met_since: int) -> int | None:
    """The event time at which what is so now leads to something; None if only a change does.

    A condition that stays met triggers when the cooldown is over, or the schedule begins; one that stays clear ends
    an alert that is flapping.

    Args:
        rule: the rule.
        standing: as the last finding left it.
        met_since: if it is met, event time since which it is, ms.
    """
    if standing.settled:
        return None
    if standing.met:
        # An alert and the next one of the same rule and device must differ in their trigger times.
        after = [met_since, *([] if standing.alert is None else [standing.alert.triggeredAt + 1])]
        if standing.quiet_until is not None:
            after.append(standing.quiet_until)
        return rule.schedule.next_covered(max(after))
    if standing.cleared_at is None or rule.flapping is None:
        return None
    return standing.cleared_at + round(rule.flapping.within * 1000)
