"""The life of alerts, said plainly: what must happen in a history, one thing after the other, looking at all of it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace.agents.alerting.known_devices import STRANGER, KnownDevice
from headrace.agents.alerting.work import alert_id
from headrace.schemas.rule import AlertRule
from headrace.schemas.silence import Silence

#: Of alerts that are over.
KEEP_MS = 1_000
WEEK_MS = 7 * 86_400_000
TYPE = "env"
Key = tuple[str, str, str]
#: By what, its id, and until when, ms.
Suppressed = tuple[str, str, int | None]


class Step(NamedTuple):
    """Something appended at `at_ms`.

    Args:
        kind: reading, command; or device, silence, cause, rule: a change of a replicated table.
        name: device id, or key of the table.
        value: measures, command, or value of the key.
        time_ms: event time of a reading.
    """

    at_ms: int
    kind: str
    name: str
    value: Any
    time_ms: int = 0


class Event(NamedTuple):
    """What an event says, as far as the model knows it."""

    change: str
    rule: str
    device: str
    id: str
    revision: int = 0
    status: str = ""
    suppressed: Suppressed | None = None
    explained_by: str | None = None
    explains: bool = False
    comments: int = 0


@dataclass
class Known:
    """What is known of a rule on a device."""

    id: str = ""
    status: str = ""
    triggered: int = 0
    revision: int = 0
    gateway: str | None = None
    organisation: str | None = None
    suppressed: Suppressed | None = None
    explained_by: str | None = None
    explains: bool = False
    comments: int = 0
    met: bool = False
    blocked: bool = False
    quiet_until: int = 0
    snoozed_until: int = 0
    over_at: int | None = None
    commands: set[str] = field(default_factory=set)

    @property
    def open(self) -> bool:
        return self.status in ("triggered", "acknowledged")

    def rest(self, now: int) -> None:
        rests = bool(self.id) and not (self.open or self.met or self.blocked)
        self.over_at = (now if self.over_at is None else self.over_at) if rests else None


class Model:
    """Takes steps in order; `events` is what must come of them."""

    def __init__(self) -> None:
        self.now = 0
        self.events: list[Event] = []
        self.known: dict[Key, Known] = {}
        self.forgotten: set[str] = set()
        self._changes: dict[str, list[Step]] = {kind: [] for kind in ("device", "silence", "cause", "rule")}

    def take(self, step: Step) -> None:
        """What happens with this step."""
        if step.kind in self._changes:
            self._changes[step.kind].append(step)
            return
        if step.kind == "reading":
            self.now = max(self.now, step.at_ms)
        self._review()
        if step.kind == "reading":
            self._reading(step)
        else:
            self._command(step)

    def _table(self, kind: str) -> dict[str, Any]:
        found = {step.name: step.value for step in self._changes[kind] if step.at_ms <= self.now}
        return {key: value for key, value in sorted(found.items()) if value is not None}

    def _rules(self) -> dict[str, AlertRule]:
        return {key: rule for key, rule in self._table("rule").items() if rule.status == "active"}

    def _device(self, name: str) -> KnownDevice:
        found: KnownDevice = self._table("device").get(name, STRANGER)
        return found

    def _covers(self, rule: AlertRule, device: str) -> bool:
        return rule.organization_id in (None, self._device(device).organisation)

    def _review(self) -> None:
        for key, known in sorted(self.known.items()):
            rule = self._rules().get(key[0])
            if rule is None and not known.open:
                known.met = known.blocked = False  # begins anew, should it come back
                known.rest(self.now)
            if known.open:
                retired = self._device(key[2]).status == "retired"
                if rule is None or retired or not self._covers(rule, key[2]):
                    known.met = known.blocked = False
                    self._end(key, known)
                    continue
                before = known.suppressed, known.explained_by, known.explains
                self._suppress(key, known)
                known.explains = rule.explains
                if before != (known.suppressed, known.explained_by, known.explains):
                    flips = bool(before[0]) != bool(known.suppressed)
                    known.revision += 1
                    change = "suppressed" if known.suppressed else "unsuppressed"
                    self._emit(change if flips else "updated", key, known)
            elif known.over_at is not None and self.now >= known.over_at + KEEP_MS:
                self.forgotten.add(known.id)
                del self.known[key]

    def _suppress(self, key: Key, known: Known) -> None:
        device = key[2]
        gateways: list[str] = []
        gateway = known.gateway
        while gateway is not None and gateway not in gateways:
            gateways.append(gateway)
            gateway = None if gateway == device else self._device(gateway).gateway
        causes = self._table("cause").values()
        explains = [cause.alertId for gateway in gateways for cause in causes if cause.deviceId == gateway]
        known.explained_by = explains[0] if explains and device not in gateways else None
        known.suppressed = None
        silences = [each for each in self._table("silence").values() if self._matches(each, key, known)]
        worked_on = [each for each in (device, *gateways) if self._device(each).status == "maintenance"]
        if self.now < known.snoozed_until:
            known.suppressed = "snooze", known.id, known.snoozed_until
        elif silences:
            known.suppressed = "silence", silences[0].id, silences[0].ends_at
        elif worked_on:
            known.suppressed = "maintenance", worked_on[0], None
        elif known.explained_by:
            known.suppressed = "inhibition", known.explained_by, None

    def _matches(self, silence: Silence, key: Key, known: Known) -> bool:
        return (
            silence.starts_at <= self.now < silence.ends_at
            and (not silence.rule_ids or key[0] in silence.rule_ids)
            and (not silence.device_ids or key[2] in silence.device_ids)
            and (not silence.gateway_ids or bool({key[2], known.gateway} & set(silence.gateway_ids)))
            and (not silence.organization_ids or known.organisation in silence.organization_ids)
        )

    def _reading(self, step: Step) -> None:
        for rule_id, rule in self._rules().items():
            value = step.value.get(rule.condition.metric)  # type: ignore[union-attr]
            if value is None or not self._covers(rule, step.name):
                continue
            key = (rule_id, TYPE, step.name)
            known = self.known.get(key, Known())
            if value > rule.condition.threshold:  # type: ignore[union-attr]
                again = known.id and step.time_ms <= known.triggered
                if known.open or known.blocked or step.time_ms < known.quiet_until or again:
                    known.met = True
                elif self._device(step.name).status != "retired":
                    self.known[key] = known = self._trigger(rule, key, step)
                else:
                    continue
            else:
                known.met = known.blocked = False
                if known.open:
                    self._end(key, known)
            if known.id:
                known.rest(self.now)

    def _trigger(self, rule: AlertRule, key: Key, step: Step) -> Known:
        device = self._device(step.name)
        quiet = step.time_ms + round(rule.cooldown_period * 1000)
        known = Known(
            alert_id(key, step.time_ms), "triggered", step.time_ms, 1, device.gateway, device.organisation,
            explains=rule.explains, met=True, quiet_until=quiet,
        )  # fmt: skip
        self._suppress(key, known)
        self._emit("triggered", key, known)
        return known

    def _end(self, key: Key, known: Known) -> None:
        known.status, known.revision, known.snoozed_until = "resolved", known.revision + 1, 0
        known.rest(self.now)
        self._emit("resolved", key, known)

    def _command(self, step: Step) -> None:
        wanted, command_id = step.value["alertId"], step.value["commandId"]
        key, known = next(((key, each) for key, each in self.known.items() if each.id == wanted), (("", "", ""), None))
        if known is not None and command_id in known.commands:
            return
        done = known is not None and key[2] == step.name and self._carry_out(key, known, step)
        if known is not None:
            known.commands.add(command_id)
        if not done:
            self.events.append(Event("refused", "", step.name, command_id))

    def _carry_out(self, key: Key, known: Known, step: Step) -> bool:
        name = step.value["command"]
        earliest = max(step.at_ms, self.now)
        allowed = {
            "acknowledge": known.status == "triggered",
            "resolve": known.status == "acknowledged",
            "comment": True,
            "snooze": known.open and earliest < step.value.get("until", 0) <= earliest + WEEK_MS,
        }[name]
        if not allowed:
            return False
        if name == "resolve":
            known.blocked = known.met
            self._end(key, known)
            return True
        known.revision += 1
        known.comments += name == "comment"
        if name == "acknowledge":
            known.status = "acknowledged"
        if name == "snooze":
            known.snoozed_until = step.value["until"]
            self._suppress(key, known)
        self._emit({"acknowledge": "acknowledged", "comment": "commented", "snooze": "snoozed"}[name], key, known)
        return True

    def _emit(self, change: str, key: Key, known: Known) -> None:
        self.events.append(
            Event(
                change, key[0], key[2], known.id, known.revision, known.status, known.suppressed, known.explained_by,
                known.explains, known.comments,
            )
        )  # fmt: skip
