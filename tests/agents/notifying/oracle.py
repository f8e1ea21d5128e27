"""Who is told what and when, said plainly: every minute is looked at, nothing is forgotten, nothing is indexed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from headrace.agents.notifying.escalation import people, steps_of
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.subscriptions import subscribed
from headrace.schemas.alert import Alert
from headrace.schemas.notification import Subject
from headrace.schemas.rule import Severity
from headrace.schemas.user import User
from tests.agents.notifying.histories import MINUTE

#: Channels that a step gives, or that are left; None where all are.
_Channels = Collection[str] | None

#: Time, user, channel, kind, then alert ids with the revision that is told; all of a digest, the gravest first.
Message = tuple[int, str, str, str, tuple[tuple[str, int], ...]]
CHANNELS = ("email", "push", "sms")
GRAVITY = {"critical": 0, "warning": 1, "info": 2}


@dataclass
class _Life:
    """One alert, and where telling of it stands."""

    alert: Alert
    told: list[str] = field(default_factory=list)
    since: int | None = None
    step: int = 0
    snoozed: bool = False


@dataclass
class _Pending:
    """What waits for one person on one channel: alert ids with the revision last heard of, in order."""

    waits: dict[str, int] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    #: Alert ids that were told there.
    told: set[str] = field(default_factory=set)
    #: Of what waits, how an alert went on that had been told before: who is not told of that need not wait for it.
    news: dict[str, str] = field(default_factory=dict)


class Oracle:
    """Goes through a history minute by minute; all of it is at whole minutes.

    Args:
        users: by id; they do not change.
    """

    def __init__(self, settings: NotifySettings, users: Mapping[str, User]) -> None:
        self._settings = settings
        self._users = users
        self._lives: dict[tuple[str, str], _Life] = {}
        self._by_id: dict[str, _Life] = {}
        self._pending = {(user, channel): _Pending() for user in users for channel in CHANNELS}
        self._caps: dict[str, list[tuple[int, int]]] = {
            channel: [(int(text.split("/")[0]), int(text.split("/")[1][:-1]) * MINUTE) for text in texts]
            for channel, texts in settings.caps.items()
        }
        self.messages: list[Message] = []

    def run(self, events: Sequence[tuple[int, str, Alert]], start_ms: int, end_ms: int) -> list[Message]:
        """Everything that is sent until the end."""
        left = list(events)
        for now in range(start_ms, end_ms + 1, MINUTE):
            self._release(now)
            self._escalate(now)
            while left and left[0][0] == now:
                self._happens(now, *left.pop(0)[1:])
        assert not left
        return self.messages

    def _release(self, now: int) -> None:
        for (user_id, channel), line in self._pending.items():
            user = self._users[user_id]
            ready = [each for each in line.waits if not quiet(user, self._by_id[each].alert.severity, now)]
            if ready and self._free(line, channel, now):
                said = {each: line.waits.pop(each) for each in ready}
                for each in ready:
                    if each in line.news and not self._tells(channel, line.news.pop(each)):
                        del said[each]
                if said:
                    self._send(now, user_id, channel, "digest", said)

    def _tells(self, channel: str, kind: str) -> bool:
        """Whether people are told there that an alert was acknowledged, or is over."""
        return channel != "sms" and kind in self._settings.tell

    def _escalate(self, now: int) -> None:
        for key in sorted(self._lives, key=lambda each: (each[0], "environmental", each[1])):
            life = self._lives[key]
            policy = steps_of(life.alert, self._settings)
            if life.since is None or policy is None:
                continue
            if life.step >= len(policy.steps) * (policy.repeat + 1):
                continue
            steps = [policy.steps[number % len(policy.steps)] for number in range(life.step + 1)]
            if now == life.since + sum(each.after_ms for each in steps):
                life.step += 1
                step = steps[-1]
                subject = Subject(alert=life.alert)
                for user, match in people(step, self._users.values(), subject, now):
                    if match.fits:
                        life.told.append(user.user_id)
                        self._decide(now, user, life, "escalation", match.channels, step.channels)

    def _happens(self, now: int, change: str, alert: Alert) -> None:
        key = alert.ruleId, alert.deviceId
        if change == "triggered":
            self._lives[key] = self._by_id[alert.alertId] = _Life(alert)
        life = self._lives[key]
        life.alert = alert
        if change == "commented":
            return
        if change in ("acknowledged", "resolved"):
            life.since = None
            for user_id in dict.fromkeys(life.told):
                self._follow(now, user_id, life, change)
        elif alert.suppressed is not None:
            life.since = None
            if change == "snoozed":
                life.snoozed = True
            for line in self._pending.values():
                line.waits.pop(alert.alertId, None)
                line.news.pop(alert.alertId, None)
        else:
            again, life.snoozed = life.snoozed, False
            if alert.status == "triggered":
                life.since = now
            for user_id in sorted(self._users):
                match = subscribed(self._users[user_id], Subject(alert=alert))
                if match.fits:
                    life.told.append(user_id)
                    self._decide(now, self._users[user_id], life, "alert", match.channels, None, again=again)

    def _decide(
        self,
        now: int,
        user: User,
        life: _Life,
        kind: str,
        narrowed: _Channels,
        given: _Channels,
        *,
        again: bool = False,
    ) -> None:
        alert = life.alert
        for channel in CHANNELS:
            line = self._pending[user.user_id, channel]
            if alert.alertId in line.waits:
                line.waits[alert.alertId] = alert.revision
                continue
            if not self._has(user, alert.severity, channel, narrowed, given):
                continue
            if kind == "alert" and alert.alertId in line.told and not again:
                continue
            self._tell(now, user, channel, kind, alert)

    def _follow(self, now: int, user_id: str, life: _Life, kind: str) -> None:
        alert, user = life.alert, self._users[user_id]
        if alert.suppressed is not None:
            return
        for channel in CHANNELS:
            line = self._pending[user_id, channel]
            if alert.alertId in line.waits:
                line.waits[alert.alertId] = alert.revision
                if alert.alertId in line.told:
                    line.news[alert.alertId] = kind
                continue
            tells = self._tells(channel, kind) and alert.alertId in line.told
            if tells and self._has(user, alert.severity, channel, None, None):
                self._tell(now, user, channel, kind, alert)

    def _tell(self, now: int, user: User, channel: str, kind: str, alert: Alert) -> None:
        line = self._pending[user.user_id, channel]
        if quiet(user, alert.severity, now) or not self._free(line, channel, now):
            line.waits[alert.alertId] = alert.revision
        else:
            self._send(now, user.user_id, channel, kind, {alert.alertId: alert.revision})

    def _send(self, now: int, user_id: str, channel: str, kind: str, said: dict[str, int]) -> None:
        line = self._pending[user_id, channel]
        line.sent.append(now)
        line.told |= set(said)
        alerts = sorted(said.items(), key=lambda each: GRAVITY[self._by_id[each[0]].alert.severity])
        self.messages.append((now, user_id, channel, kind, tuple(alerts)))

    def _free(self, line: _Pending, channel: str, now: int) -> bool:
        return all(
            sum(now - within < each <= now for each in line.sent) < count for count, within in self._caps[channel]
        )

    def _has(self, user: User, severity: Severity, channel: str, narrowed: _Channels, given: _Channels) -> bool:
        """Whether a channel is for them: matrix or step, then the floor or what they want, then the contact."""
        settings, wants = self._settings, user.preferences
        channels = settings.matrix[severity] if given is None else given
        if channel not in channels:
            return False
        wanted = getattr(wants.notifications, channel)
        wanted &= severity not in wants.severities or channel in wants.severities[severity]
        wanted &= narrowed is None or channel in narrowed
        contact = {"email": user.email, "push": user.device_tokens, "sms": user.phone}[channel]
        return bool(contact) and (wanted or channel in settings.floor.get(severity, ()))


def quiet(user: User, severity: str, now: int) -> bool:
    """Whether the wall clock there shows quiet hours."""
    hours = user.preferences.quiet_hours
    if hours is None or not hours.enabled or severity in hours.override:
        return False
    clock = datetime.fromtimestamp(now / 1000, UTC).astimezone(ZoneInfo(hours.timezone or user.timezone))
    shown = f"{clock:%H:%M}"
    if hours.start < hours.end:
        return hours.start <= shown < hours.end
    return shown >= hours.start or shown < hours.end
