"""What somebody would have been told with settings of theirs: the very same agents, over alerts that are stored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson
import pydantic

from headrace.agents.notifying.dispatch import Dispatch
from headrace.agents.notifying.notify import Notify
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.subscriptions import subscribed
from headrace.engine.batch import Idle
from headrace.engine.errors import BadRecord
from headrace.engine.log import Fetched
from headrace.engine.operator import Operator
from headrace.engine.records import Record, Records
from headrace.engine.replicas import Replica
from headrace.engine.testkit import Driven, fetched, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import PREFIX, Alert
from headrace.schemas.device_type import DeviceType
from headrace.schemas.notification import NotificationState, RuleCount, Subject
from headrace.schemas.user import User
from headrace.tables.users import user_table

#: Decisions that are kept; more are only counted.
MOST_KEPT = 10_000
#: Partition of the requests: those of one person are all in one.
_ONE = 0


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


_read_event = msgspec.json.Decoder(_Event).decode
_TRIGGERED = f"{PREFIX}triggered"


class Decided(NamedTuple):
    """One decision.

    Args:
        state: as `notifications.v1` would have had it; queued is what would have been sent.
        counts: of a digest, per rule.
    """

    state: NotificationState
    counts: tuple[RuleCount, ...] = ()


class Preview:
    """Gives both agents that decide the history of alerts, with one person as the only one there is.

    The person is as they are given for the whole history, and `[notify]` as it is given. Whether a contact takes what
    it is sent is not asked: what would have gone into the outbox counts as sent. Requests come to the agent that
    dispatches in the order of their append times, over all partitions of the alerts; live, an agent that lags may bring
    those of one partition later, and where a cap is in the way another alert may be the first.

    Memory: the tables of the agents for one person, and `MOST_KEPT` decisions.

    Args:
        start_ms: decisions from then on count, ms since 1970 UTC; what was before makes the state that they find.
    """

    def __init__(
        self, user: User, settings: NotifySettings, device_types: Mapping[str, DeviceType], start_ms: int
    ) -> None:
        users = user_table()
        users.put(user.user_id, user, at_ms=0)
        self._user = user
        self._recipient = f"user:{user.user_id}".encode()
        self._notify = Notify(settings, users, device_types)
        self._dispatch = Dispatch(settings, users)
        self._start_ms = start_ms
        self._partitions: set[int] = set()
        #: To be read before the first alerts: the device registry.
        self.replicas: Sequence[Replica] = (self._notify.places.table,)
        #: The first `MOST_KEPT` decisions, in order, and how many there were.
        self.decisions: list[Decided] = []
        self.count = 0
        #: Alerts that triggered, and of these that the person is subscribed to, counts.
        self.alerts = 0
        self.concerned = 0
        #: Of the others, how many by why not, and an example of that in words.
        self.unconcerned: Counter[str] = Counter()
        self.why_unconcerned: dict[str, str] = {}
        #: Messages by channel, and digests among them; counts.
        self.messages: Counter[str] = Counter()
        self.digests: Counter[str] = Counter()
        #: Alerts that were held, and that were not told, by channel ("" for all at once) and code; counts.
        self.held: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        #: What people call rules and devices, by their ids.
        self.rule_names: dict[str, str] = {}
        self.device_names: dict[str, str] = {}
        self._seen_held: set[tuple[str, str]] = set()

    def take(self, parts: Sequence[Fetched], until_ms: int) -> None:
        """The next events of `alerts.v1`.

        Args:
            parts: of partitions, none of them later than `until_ms`; later calls bring later ones.
        """
        requests: list[Record] = []
        for part in parts:
            self._partitions.add(part.target.partition)
            self._look(part)
            requests += self._run(self._notify, part)
        for partition in sorted(self._partitions):
            nothing = fetched(Records([], [], []), topics.ALERTS, partition)
            requests += self._run(self._notify, nothing, Idle(0, until_ms))
        mine = [each for each in requests if each.key == self._recipient]
        mine.sort(key=lambda each: each.timestamp)
        records = Records([each.key for each in mine], [each.value for each in mine], [each.timestamp for each in mine])
        self._run(self._dispatch, fetched(records, topics.NOTIFICATION_REQUESTS, _ONE))

    def finish(self, end_ms: int) -> None:
        """Time goes on to the end, and nothing more comes."""
        self.take((), end_ms)
        nothing = fetched(Records([], [], []), topics.NOTIFICATION_REQUESTS, _ONE)
        self._run(self._dispatch, nothing, Idle(0, end_ms))

    def _run(self, operator: Operator, part: Fetched, idle: Idle | None = None) -> list[Record]:
        """Let an agent work, and note what it decides; the requests that it emits."""
        driven = Driven({}, [])
        while True:
            try:
                run_batch(operator, part, driven, idle)
                break
            except BadRecord as error:  # live it becomes a dead letter, and the others go on
                run_batch(operator, part.part(0, error.index), driven)
                part = part.part(error.index + 1, len(part.records))
        for table in operator.tables:
            table.changes(part.target.partition)  # nobody keeps them, but tables drop what is past on this occasion
        self._note(driven)
        return driven.sent.get(topics.NOTIFICATION_REQUESTS, [])

    def _look(self, part: Fetched) -> None:
        """Count the alerts that trigger, and whether they concern the person."""
        for value, at_ms in zip(part.records.values, part.records.timestamps, strict=True):
            try:
                event = _read_event(value or b"")
                if event.type != _TRIGGERED:
                    continue
                alert = Alert.model_validate_json(bytes(event.data), extra="ignore")
            except (msgspec.MsgspecError, pydantic.ValidationError):
                continue
            self.rule_names[alert.ruleId] = alert.ruleName
            if alert.deviceName is not None:
                self.device_names[alert.deviceId] = alert.deviceName
            if at_ms < self._start_ms:
                continue
            self.alerts += 1
            match = subscribed(self._user, Subject(alert=alert, place=self._notify.places.of(alert, at_ms)))
            if match.fits:
                self.concerned += 1
            else:
                reason = match.reasons[-1]
                self.unconcerned[reason.code] += 1
                self.why_unconcerned.setdefault(reason.code, reason.text)

    def _note(self, driven: Driven) -> None:
        """Take decisions. Only those that are kept become models: it may be about hundreds of thousands."""
        counts: dict[str, list[Any]] = {}
        for record in driven.sent.get(topics.OUTBOX, ()):
            told = orjson.loads(record.value or b"")
            if told["counts"]:
                counts[told["notificationId"]] = told["counts"]
        for record in driven.sent.get(topics.NOTIFICATIONS, ()):
            state = orjson.loads(record.value or b"")["data"]
            if record.key != self._recipient or state["decidedAt"] < self._start_ms:
                continue
            self._count(state)
            if len(self.decisions) < MOST_KEPT:
                rules = tuple(map(RuleCount.model_validate, counts.get(state["notificationId"], ())))
                self.decisions.append(Decided(NotificationState.model_validate(state), rules))

    def _count(self, state: Mapping[str, Any]) -> None:
        self.count += 1
        channel, code = state.get("channel", ""), state["reasons"][-1]["code"] if state["reasons"] else ""
        alerts = state.get("alertIds") or [state["alertId"]]
        if state["status"] == "queued":
            self.messages[channel] += 1
            self.digests[channel] += state["kind"] == "digest"
            self._seen_held.difference_update([(channel, alert_id) for alert_id in alerts])
        elif state["status"] == "held":
            new = {(channel, alert_id) for alert_id in alerts} - self._seen_held
            self._seen_held |= new
            self.held[channel, code] += len(new)
        else:
            self.dropped[channel, code] += len(alerts)
