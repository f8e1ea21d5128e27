"""Alerts about measured values as the guide words them: for every reading all of its history is looked at anew.

Nothing is carried from one reading to the next but the readings themselves, and which alerts there were.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from headrace.schemas.condition import ExpressionCondition, ValueCondition
from headrace.schemas.rule import AlertRule
from headrace.schemas.schedule import DAYS, Schedule
from tests.agents.alerting.histories import Row

#: What the expressions of the tests mean, in Python.
EXPRESSIONS: dict[str, Callable[[dict[str, float]], bool]] = {
    "temperature > 40 and co2 > 40": lambda of: of["temperature"] > 40 and of["co2"] > 40,
    "temperature > 40 or not co2 > 6": lambda of: of["temperature"] > 40 or not of["co2"] > 6,
    "abs(temperature - co2) >= 4": lambda of: abs(of["temperature"] - of["co2"]) >= 4,
}
FIRST_AND_NEWEST = 20


class Sample(NamedTuple):
    """What a rule looks at in one reading: event time (ms), and value."""

    time: int
    value: float


class Verdict(NamedTuple):
    """Whether a condition is met at a time (ms), why not, and the times of the samples that show it."""

    time: int
    met: bool
    by: str
    evidence: list[int]


class Event(NamedTuple):
    """What happened to an alert, and the place of the record that made it happen."""

    row: int
    rule_id: str
    device: tuple[str, str]
    change: str
    triggered_at: int
    resolved_at: int | None = None
    by: str | None = None
    value: float | None = None
    evidence: tuple[int, ...] = ()
    triggers: int = 0
    flapping: bool = False
    cooled: int = 0


@dataclass
class Episode:
    """An alert, the place of the verdict that began it, and how many verdicts there were when it ended."""

    event: Event
    began: int
    over: Event | None = None
    ended: int = 0


@dataclass
class Past:
    """All that came of one rule on one device."""

    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)


class Oracle:
    """Takes readings, and people's resolutions, one by one.

    Args:
        rules: with conditions on values; they do not change.
    """

    def __init__(self, rules: list[AlertRule]) -> None:
        self.rules = rules
        self.events: list[Event] = []
        self._rows: list[Row] = []
        self._past: dict[tuple[str, str, str], Past] = {}

    def read(self, row: int, reading: Row) -> None:
        """A reading of the ordinary lane, in record `row`."""
        device, kind, time, values = reading
        earlier = [each for each in self._rows if each[:2] == (device, kind)]
        self._rows.append(reading)
        if any(time < each[2] for each in earlier):
            return
        in_order = [each for place, each in enumerate(earlier) if all(each[2] >= e[2] for e in earlier[:place])]
        for rule in self.rules:
            applies = rule.status == "active" and rule.device_type in ("all", kind)
            if not applies or (rule.device_ids and device not in rule.device_ids):
                continue
            assert isinstance(rule.condition, ValueCondition)
            value = looked_at(rule.condition, time, values, in_order)
            if value is None:
                continue
            past = self._past.setdefault((rule.rule_id, kind, device), Past())
            past.samples.append(Sample(time, value))
            for verdict in verdicts(rule.condition, past.samples)[len(past.verdicts) :]:
                past.verdicts.append(verdict)
                self._judge(row, rule, (kind, device), past, value)

    def resolve(self, row: int, at_ms: int, rule_id: str, device: tuple[str, str]) -> bool:
        """A person acknowledges and resolves the alert, if there is one."""
        past = self._past.get((rule_id, *device), Past())
        if not past.episodes or past.episodes[-1].over is not None:
            return False
        episode = past.episodes[-1]
        self.events.append(Event(row, rule_id, device, "acknowledged", episode.event.triggered_at))
        episode.over = episode.event._replace(
            row=row + 1, change="resolved", resolved_at=at_ms + 1, by="person", value=None, evidence=()
        )
        episode.ended = len(past.verdicts)
        self.events.append(_told(episode.over))
        return True

    def _judge(self, row: int, rule: AlertRule, device: tuple[str, str], past: Past, value: float) -> None:
        verdict, place = past.verdicts[-1], len(past.verdicts) - 1
        newest = past.episodes[-1] if past.episodes else None
        if newest is not None and newest.over is None:
            if verdict.met or (verdict.by == "condition" and self._flaps_on(rule, newest, past)):
                return
            newest.over = newest.event._replace(
                row=row, change="resolved", resolved_at=verdict.time, by=verdict.by,
                value=value if verdict.by == "condition" else None,
            )  # fmt: skip
            newest.ended = place + 1
            self.events.append(_told(newest.over))
            return
        if verdict.met and not self._blocked(past) and covered(rule.schedule, verdict.time):
            self._trigger(row, rule, device, past, value, place)

    def _trigger(
        self, row: int, rule: AlertRule, device: tuple[str, str], past: Past, value: float, place: int
    ) -> None:
        verdict, cooldown = past.verdicts[place], round(rule.cooldown_period * 1000)
        cooled = 0
        if past.episodes:
            last = past.episodes[-1].event.triggered_at
            if verdict.time < last + cooldown or verdict.time <= last:
                return
            cooled = sum(
                past.verdicts[each].met
                and not past.verdicts[each - 1].met
                and past.verdicts[each].time < last + cooldown
                and covered(rule.schedule, past.verdicts[each].time)
                for each in range(past.episodes[-1].ended, place)
            )
        triggers, flapping = 1, False
        if rule.flapping is not None:
            times = [each.event.triggered_at for each in past.episodes] + [verdict.time]
            lately = [time for time in times if time >= verdict.time - rule.flapping.within * 1000]
            triggers = min(len(lately), rule.flapping.triggers)
            flapping = triggers >= rule.flapping.triggers
        event = Event(
            row, rule.rule_id, device, "triggered", verdict.time, None, None, value,
            tuple(verdict.evidence), triggers, flapping, cooled,
        )  # fmt: skip
        past.episodes.append(Episode(event, place))
        self.events.append(event)

    def _flaps_on(self, rule: AlertRule, episode: Episode, past: Past) -> bool:
        """Whether a flapping alert stays although its condition is not met."""
        if rule.flapping is None or not episode.event.flapping:
            return False
        clear = past.verdicts[-1].time
        for verdict in reversed(past.verdicts[episode.began :]):
            if verdict.met:
                break
            clear = verdict.time
        return past.verdicts[-1].time - clear < rule.flapping.within * 1000

    def _blocked(self, past: Past) -> bool:
        """Whether a person has ended the newest alert, and the condition has been met ever since."""
        if not past.episodes or past.episodes[-1].over is None or past.episodes[-1].over.by != "person":
            return False
        return all(each.met for each in past.verdicts[past.episodes[-1].ended - 1 :])


def looked_at(condition: ValueCondition, time: int, values: dict[str, float], earlier: list[Row]) -> float | None:
    """What the condition looks at in a reading of these values."""
    if isinstance(condition, ExpressionCondition):
        return float(EXPRESSIONS[condition.expression](values)) if len(values) == 2 else None
    value = values.get(condition.metric)
    if value is None or condition.rate_per is None:
        return value
    before = [(each[2], each[3][condition.metric]) for each in earlier if condition.metric in each[3]]
    if not before or before[-1][0] == time:
        return None
    return (value - before[-1][1]) / (time - before[-1][0]) * 1000 * condition.rate_per


def verdicts(condition: ValueCondition, samples: list[Sample]) -> list[Verdict]:
    """One per sample, and one more where no data ended it; found episode by episode."""
    found: list[Verdict] = []
    begin, since_met = 0, None
    for now, sample in enumerate(samples):
        gap_end = last_gap(condition, samples, begin, now)
        if since_met is not None and gap_end == now and condition.gap == "no-data":
            assert condition.max_gap is not None
            found.append(Verdict(samples[now - 1].time + round(condition.max_gap * 1000), False, "no-data", []))
            begin, since_met = now, None
        if since_met is None:
            evidence = proof(condition, samples, max(begin, gap_end), now)
            if evidence is not None:
                since_met = now
            found.append(Verdict(sample.time, evidence is not None, "condition", evidence or []))
        elif is_over(condition, samples, since_met, max(begin, gap_end), now):
            begin, since_met = now + 1, None
            found.append(Verdict(sample.time, False, "condition", []))
        else:
            evidence = proof(condition, samples, max(begin, last_gap(condition, samples, begin, since_met)), since_met)
            found.append(Verdict(sample.time, True, "condition", evidence or []))
    return found


def last_gap(condition: ValueCondition, samples: list[Sample], begin: int, now: int) -> int:
    """Place of the newest sample before which there was a gap that counts; -1 if there was none."""
    if condition.max_gap is None:
        return -1
    most = condition.max_gap * 1000
    gaps = (at for at in range(begin + 1, now + 1) if samples[at].time - samples[at - 1].time > most)
    return max(gaps, default=-1)


def proof(condition: ValueCondition, samples: list[Sample], start: int, now: int) -> list[int] | None:
    """Times of the samples that show that the condition is met now; None if it is not. Looks at those from `start`."""
    fit = [is_fit(condition, samples, start, at) for at in range(start, now + 1)]
    if not fit[-1]:
        return None
    streak = max((place + 1 for place, fits in enumerate(fit) if not fits), default=0) + start
    if samples[now].time - samples[streak].time < condition.duration * 1000:
        return None
    first = streak
    if condition.out_of is not None:
        m = condition.out_of.m
        windows = [any(holding(condition, samples, max(start, at - m + 1), at)) for at in range(start, now + 1)]
        first = max((place + 1 for place, held in enumerate(windows) if not held), default=0) + start
    times = [samples[at].time for at in range(first, now + 1) if holding(condition, samples, at, at)[0]]
    return times if len(times) <= FIRST_AND_NEWEST else [times[0], *times[-FIRST_AND_NEWEST + 1 :]]


def holding(condition: ValueCondition, samples: list[Sample], first: int, last: int) -> list[bool]:
    """Whether the condition, not being met, holds on each of some samples."""
    return [compares(condition, each.value, clear=False) for each in samples[first : last + 1]]


def is_fit(condition: ValueCondition, samples: list[Sample], start: int, at: int) -> bool:
    """Whether the condition holds at a sample, with "n of m" by those before it."""
    if condition.out_of is None:
        return holding(condition, samples, at, at)[0]
    return sum(holding(condition, samples, max(start, at - condition.out_of.m + 1), at)) >= condition.out_of.n


def is_over(condition: ValueCondition, samples: list[Sample], since_met: int, start: int, now: int) -> bool:
    """Whether a condition that has been met since a sample is clear now, for as long as it must be."""
    clear = [is_clear(condition, samples, since_met, start, at) for at in range(max(start, since_met + 1), now + 1)]
    if not clear[-1]:
        return False
    streak = now
    for cleared, at in zip(reversed(clear), range(now, -1, -1), strict=False):
        if not cleared:
            break
        streak = at
    return samples[now].time - samples[streak].time >= condition.clear_for * 1000


def is_clear(condition: ValueCondition, samples: list[Sample], since_met: int, start: int, at: int) -> bool:
    """Whether the condition does not hold any more at a sample; what is before `start` is lost, and counts as held."""
    if condition.out_of is None:
        return not compares(condition, samples[at].value, clear=True)
    window = range(max(start, at - condition.out_of.m + 1), at + 1)
    misses = sum(not compares(condition, samples[each].value, clear=each > since_met) for each in window)
    return misses > condition.out_of.m - condition.out_of.n


def compares(condition: ValueCondition, value: float, *, clear: bool) -> bool:
    """Whether a value is on the side of the threshold, or of `clear`, on which the condition holds."""
    if isinstance(condition, ExpressionCondition):
        return value != 0
    threshold = condition.clear if clear and condition.clear is not None else condition.threshold
    match condition.operator:
        case ">":
            return value > threshold
        case "<":
            return value < threshold
        case ">=":
            return value >= threshold
        case "<=":
            return value <= threshold
        case "==":
            return value == threshold


def covered(schedule: Schedule, time_ms: int) -> bool:
    """Whether the schedule covers a time: some stretch that begins on that day or the one before has it in it."""
    if schedule.type == "always":
        return True
    there = datetime.fromtimestamp(time_ms // 60_000 * 60, ZoneInfo(schedule.timezone)).replace(tzinfo=None)
    midnight = there.replace(hour=0, minute=0)
    stretches: list[Any] = [([*DAYS[:5]], "09:00", "17:00")]
    if schedule.type == "custom":
        stretches = [(each.days, each.start, each.end) for each in schedule.stretches]
    for days, start, end in stretches:
        for day in (midnight - timedelta(1), midnight):
            first, last = (day + timedelta(hours=int(each[:2]), minutes=int(each[3:])) for each in (start, end))
            last += timedelta(days=last <= first)
            if DAYS[day.weekday()] in days and first <= there < last:
                return True
    return False


def _told(over: Event) -> Event:
    """What is compared of the end of an alert."""
    return over._replace(evidence=(), triggers=0, flapping=False, cooled=0)
