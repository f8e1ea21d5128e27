"""Why a recipient was told of an alert, or not, in order: what is recorded, and what the rules say where nothing is."""

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from headrace.agents.notifying.channels import CHANNELS, choose
from headrace.agents.notifying.clock_changes import wall
from headrace.agents.notifying.escalation import due, people, step_of, steps_of
from headrace.agents.notifying.quiet_hours import quiet_until
from headrace.agents.notifying.settings import NotifySettings, Step
from headrace.agents.notifying.subscriptions import Match, may_be_told, subscribed
from headrace.cli.why_lines import DECISIONS, Line, about, event_text, shown, state_text, suppression
from headrace.cli.why_records import Found, Noted
from headrace.schemas.notification import NotificationState, Reason, Subject
from headrace.schemas.rule import Channel
from headrace.schemas.user import User

#: Steps of an escalation that are gone through.
MOST_STEPS = 1_000
#: Codes of decisions that have to do with what the clock shows where somebody is.
_BY_CLOCK = frozenset({"quiet-hours", "override", "quiet-hours-over"})


class Story:
    """The story of one alert and one recipient.

    What is recorded is told as it is. What leaves no record is found by the same functions that the agents decide by,
    as of the settings and registries that there are now: that they are not subscribed, a channel that the severity does
    not have, a step that tells others.
    """

    def __init__(self, found: Found, settings: NotifySettings) -> None:
        self._found = found
        self._settings = settings
        self.user = found.user or found.user_now
        self.zone = ZoneInfo(self.user.timezone if self.user else "UTC")
        self._recorded = {
            (each.state.kind, each.state.step, each.state.channel)
            for each in found.notes
            if each.state.status in DECISIONS
        }

    def lines(self) -> list[Line]:
        """All of it, by time."""
        found = self._found
        lines = [*self._events(), *self._rules(), *map(self._noted, found.notes)]
        lines += map(self._last, found.last)
        lines += [*self._counted(), *self._steps()]
        return sorted(lines, key=lambda line: line.at_ms)

    @property
    def told(self) -> bool:
        """Whether something about it was sent to them."""
        states = [*(each.state for each in self._found.notes), *self._found.last]
        return any(each.status in ("sent", "delivered") for each in states)

    def outcome(self) -> dict[str, Line]:
        """What came of it, by channel: the last that was sent; else the last that was decided of the alert itself."""
        final: dict[str, tuple[int, Line]] = {}
        for line in self.lines():
            if line.channel is not None and line.at_ms <= self._found.now_ms:
                weight = _weight(line)
                if line.channel not in final or weight >= final[line.channel][0]:
                    final[line.channel] = weight, line
        return {channel: line for channel, (_, line) in final.items()}

    # -- what is recorded

    def _events(self) -> Iterator[Line]:
        for each in self._found.events:
            yield Line(each.at_ms, event_text(each), suppression(each))

    def _noted(self, noted: Noted) -> Line:
        state = noted.state
        reasons = list(state.reasons) if state.status in DECISIONS else []
        if any(each.code in _BY_CLOCK for each in reasons):
            reasons += self._clock(noted.at_ms)
        return Line(noted.at_ms, state_text(state, self.zone), reasons, state.channel, state)

    def _last(self, state: NotificationState) -> Line:
        """What only the delivery log still knows."""
        at_ms = state.deliveredAt or state.sentAt or state.decidedAt
        return Line(at_ms, state_text(state, self.zone), state.reasons, state.channel, state)

    def _counted(self) -> Iterator[Line]:
        """Digests that told how many there were, and not of each."""
        for channel in CHANNELS:
            mine = [each for each in self._found.notes if each.state.channel == channel]
            held = [each for each in mine if each.state.status == "held"]
            if not held or any(each.at_ms >= held[-1].at_ms and each.state.status != "held" for each in mine):
                continue
            later = [each for each in self._found.digests if each.state.channel == channel]
            after = next((each for each in later if each.at_ms >= held[-1].at_ms), None)
            if after is not None:
                text = f"{channel}: {about(after.state)} to be sent; it counts this alert, and does not name it"
                yield Line(after.at_ms, text, after.state.reasons, channel, after.state)

    # -- what the rules say

    def _rules(self) -> Iterator[Line]:
        """Whether it concerns them, and channels of which no decision is recorded."""
        found, user = self._found, self.user
        first = next((each for each in found.events if each.change == "triggered"), None)
        at_ms = first.at_ms if first is not None else found.alert.triggeredAt
        if found.system is not None:
            yield from self._system(found.system, at_ms)
            return
        if user is None:
            yield Line(at_ms, "there is no such user any more", computed=True)
            return
        if found.user is None:
            yield Line(at_ms, f"{user.user_id} was no user yet", computed=True)
            return
        match = subscribed(user, found.subject)
        if not match.fits:
            if any(kind == "alert" for kind, _, _ in self._recorded):
                return  # it did then: their subscriptions have changed since
            yield Line(at_ms, f"does not concern {user.user_id}", match.reasons, computed=True)
            return
        yield Line(at_ms, f"concerns {user.user_id}", match.reasons, computed=True)
        whole = ("alert", 0, None) in self._recorded
        for choice in choose(user, found.subject, "alert", match, self._settings):
            if whole or ("alert", 0, choice.channel) in self._recorded:
                continue
            if not choice.send:
                yield Line(at_ms, f"{choice.channel}: not sent", choice.reasons, choice.channel, computed=True)
            elif not self._has(choice.channel):
                yield self._unrecorded(user, found.subject, choice.channel, choice.reasons, at_ms)

    def _system(self, match: Match, at_ms: int) -> Iterator[Line]:
        """Whether it concerns an integration or a webhook."""
        if match.fits:
            yield Line(at_ms, "is for it", match.reasons, computed=True)
        elif not self._recorded:
            yield Line(at_ms, "is not for it", match.reasons, computed=True)
        if match.fits and not self._recorded and not self._found.last:
            text = "to be sent, but no decision is in the log: no worker has come to it, or the log has dropped it"
            yield Line(at_ms, text, computed=True)

    def _has(self, channel: str) -> bool:
        states = [*(each.state for each in self._found.notes), *self._found.last]
        return any(each.channel == channel for each in states)

    def _unrecorded(
        self, user: User, subject: Subject, channel: Channel, reasons: Iterable[Reason], at_ms: int
    ) -> Line:
        """What should have been decided, and is not in the log."""
        quiet = quiet_until(user, subject.alert.severity, at_ms)
        then = "to be sent" if quiet is None else f"to be held until {shown(self.zone, quiet)}"
        text = f"{channel}: {then}, but no decision is in the log: no worker has come to it, or the log has dropped it"
        return Line(at_ms, text, [*reasons, *self._clock(at_ms)] if quiet else list(reasons), channel, computed=True)

    def _steps(self) -> Iterator[Line]:
        """Steps of the escalation that leave no record: those that tell others, and the next one."""
        found, user = self._found, self.user
        policy = steps_of(found.alert, self._settings)
        if policy is None or user is None:
            return
        done = 0
        for since_ms, end_ms, subject in self._waits():
            while done < MOST_STEPS and (coming := due(policy, since_ms, done)) is not None:
                if coming.at_ms >= end_ms:
                    break
                step, done = step_of(policy, coming.step), coming.step
                if any(kind == "escalation" and number == done for kind, number, _ in self._recorded):
                    yield from self._silent(user, subject, step, done, coming.at_ms)
                    continue
                is_next = coming.at_ms > found.now_ms
                yield self._step(user, subject, step, done, coming.at_ms, is_next=is_next)
                if is_next:
                    return

    def _waits(self) -> Iterator[tuple[int, int, Subject]]:
        """When nobody had acknowledged it and people were to be told: from, until before, and what it was."""
        since: int | None = None
        place = self._found.subject.place
        alert = self._found.subject.alert
        for each in self._found.events:
            waits = each.alert.status == "triggered" and each.alert.suppressed is None
            if waits and since is None:
                since, alert = each.at_ms, each.alert
            elif not waits and since is not None:
                yield since, each.at_ms, Subject(alert=alert, place=place)
                since = None
        if since is not None:
            yield since, 1 << 62, Subject(alert=alert, place=place)

    def _step(self, user: User, subject: Subject, step: Step, number: int, at_ms: int, *, is_next: bool) -> Line:
        """A step that is not recorded for them."""
        name = f"step {number} of the escalation, {step.whom}"
        told = people(step, [user], subject, at_ms)
        if not told:
            text = f"{name}: {'is to tell' if is_next else 'told'} others"
            return Line(at_ms, text, [self._not_of(user, subject, step)], computed=True)
        match = told[0][1]
        choices = choose(user, subject, "escalation", match, self._settings, step.channels)
        by = [each.channel for each in choices if each.send] if match.fits else []
        if is_next:
            text = f"{name}: is to tell {user.user_id}" if by else f"{name}: will not reach {user.user_id}"
            return Line(at_ms, f"{text}, if nobody acknowledges the alert", match.reasons, computed=True)
        text = f"{name}: no decision is in the log" if by else f"{name}: not sent"
        return Line(at_ms, text, match.reasons, computed=True)

    def _silent(self, user: User, subject: Subject, step: Step, number: int, at_ms: int) -> Iterator[Line]:
        """Channels that a recorded step does not have."""
        if ("escalation", number, None) in self._recorded:
            return
        match = Match(True, ())
        for choice in choose(user, subject, "escalation", match, self._settings, step.channels):
            if ("escalation", number, choice.channel) not in self._recorded and not choice.send:
                text = f"{choice.channel}, step {number} of the escalation: not sent"
                yield Line(at_ms, text, choice.reasons, choice.channel, computed=True)

    @staticmethod
    def _not_of(user: User, subject: Subject, step: Step) -> Reason:
        """Why a step does not tell somebody."""
        if step.subscribers:
            return subscribed(user, subject).reasons[-1]
        hindrance = may_be_told(user, subject.alert)
        if hindrance is not None:
            return hindrance
        if step.team is None:
            return Reason(code="not-subscribed", text=f"is none of {', '.join(step.users)}")
        has = any(shift.team == step.team for shift in user.on_call)
        return Reason(code="on-call", text=f"was not on call for {step.team}" if has else f"is not in team {step.team}")

    # -- the clock where they are

    def _clock(self, at_ms: int) -> list[Reason]:
        """What the clock showed there, and their quiet hours."""
        quiet = self.user.preferences.quiet_hours if self.user else None
        if quiet is None or not quiet.enabled:
            return []
        zone = ZoneInfo(quiet.timezone) if quiet.timezone else self.zone
        text = f"it was {wall(zone, at_ms):%H:%M} there ({zone.key}); quiet hours are {quiet.start} to {quiet.end}"
        return [Reason(code="quiet-hours", text=text)]


def _weight(line: Line) -> int:
    """How much a line says of what came of it all."""
    state = line.state
    if state is None:
        return 1
    if state.status in ("sent", "delivered"):
        return 2
    return int(state.kind not in ("acknowledged", "resolved"))
