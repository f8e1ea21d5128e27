"""The agent that decides how and when somebody is told: channels, quiet hours, caps, digests."""

from collections.abc import Sequence

from headrace.agents.notifying.asked import Asked, Policy
from headrace.agents.notifying.decisions import Decisions
from headrace.agents.notifying.desk import Desk
from headrace.agents.notifying.held import chunk_table, item_table, line_table, told_table
from headrace.agents.notifying.integrations import Integration
from headrace.agents.notifying.lists import Lists
from headrace.agents.notifying.requests import Requests
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.timers import Agenda
from headrace.engine.batch import Batch
from headrace.engine.errors import BadRecord
from headrace.engine.operator import State
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.notification import Reason
from headrace.schemas.user import User
from headrace.tables.replicated import Replicated

#: How often time moves on while nothing comes, seconds: a digest is at most so late.
IDLE_TIMEOUT = 1.0


class Dispatch:
    """Decide on each request by which channels the recipient is told, now or later; see
    docs/decisions/0026-notifications.md.

    Of people it asks the severity matrix, preferences, contacts, quiet hours and caps, as of the append time of the
    request. What may not go now is held, one list per person and channel, and goes in one digest as soon as it may:
    with each alert as it is then, and by the newest preferences; these are looked at when the list is due, or when
    something else comes for the person on that channel. Integrations and webhooks are told at once.

    Emits what is to be sent to `notifications.outbox`, and each decision to `notifications.v1`. A channel that the
    matrix does not give is no decision. Held alerts are told one by one up to `held.MOST_SINGLY`, then
    `held.TOGETHER` at a time.

    The same records give the same decisions, for any batch boundaries and restarts; ids are made of alert, recipient,
    channel, kind and step.

    Args:
        users: people, as of append times.
        integrations: with different names.
    """

    name = "dispatch"
    topic = topics.NOTIFICATION_REQUESTS
    idle_timeout: float | None = IDLE_TIMEOUT

    def __init__(
        self, settings: NotifySettings, users: Replicated[User], integrations: Sequence[Integration] = ()
    ) -> None:
        self._policy = Policy(settings, users)
        self._integrations = {f"integration:{each.name}": each for each in integrations}
        self.replicas: Sequence[Replica] = (users,)
        self._lines = line_table()
        self._items = item_table()
        self._chunks = chunk_table()
        self._told = told_table()
        self.tables: tuple[State, ...] = (self._lines, self._items, self._chunks, self._told)
        self._requests = Requests()

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`."""
        return bool(self._lines.moments(partition))

    def process(self, batch: Batch) -> None:
        """Stage the decisions that the batch leads to."""
        decisions, agenda, told = Decisions(), Agenda(self._lines, batch.partition), self._told.draft(batch)
        lists = Lists(
            self._policy,
            decisions,
            self._lines.draft(batch),
            self._items.draft(batch),
            self._chunks.draft(batch),
            told,
            agenda,
        )
        desk = Desk(self._policy, decisions, lists, told)
        for row, (value, at_ms) in enumerate(zip(batch.records.values, batch.records.timestamps, strict=True)):
            lists.pass_time(at_ms)
            try:
                asked = Asked(*self._requests.read(value or b""), at_ms)
            except ValueError as error:
                raise BadRecord(row, f"no request: {error}") from error
            if asked.head.recipient.startswith("user:"):
                desk.take(asked)
            else:
                self._tell_system(asked, decisions)
        if batch.idle is not None:
            lists.pass_time(batch.idle.now_ms)
        lists.finish()
        decisions.stage(batch)
        batch.on_finish(agenda.apply)

    def _tell_system(self, asked: Asked, decisions: Decisions) -> None:
        """Integrations and webhooks are told everything, at once."""
        head = asked.head
        kind, _, name = head.recipient.partition(":")
        integration = self._integrations.get(head.recipient)
        if kind == "integration" and integration is None:
            reason = Reason(code="no-contact", text=f"there is no integration {name} any more")
            decisions.say(
                "dropped", asked.notification_id(None), asked.about, [*head.reasons, reason], asked.at_ms,
                channel=None, mark=asked.alert.revision, message_id=head.messageId,
            )  # fmt: skip
            return
        channel = "webhook" if integration is None else integration.channel
        decisions.send(
            asked.notification_id(channel), asked.about, head.reasons, asked.at_ms,
            channel=channel, contacts=[name], severity=asked.alert.severity, subjects=[asked.encoded],
            dedup_key=asked.alert.alertId, message_id=head.messageId,
        )  # fmt: skip
