"""What `headrace users preview` says: for a person, or as one JSON object."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import click
import orjson
from rich.text import Text

from headrace.agents.notifying.channels import CHANNELS
from headrace.agents.notifying.clock_changes import wall
from headrace.agents.notifying.preview import MOST_KEPT, Decided, Preview
from headrace.cli.listing import listing, printable, show_listing
from headrace.cli.moments import iso_ms
from headrace.cli.why_lines import local_times, shown
from headrace.schemas.notification import NotificationState
from headrace.schemas.user import User

_KINDS = {"acknowledged": "acknowledged: ", "resolved": "resolved: "}


@dataclass(frozen=True, slots=True)
class Previewed:
    """What came of it.

    Args:
        user: as they were previewed.
        run: finished.
        start_ms, end_ms: the range that counts, ms since 1970 UTC.
        oldest_ms: since when the log has every event; None: it has all there ever were.
    """

    user: User
    run: Preview
    start_ms: int
    end_ms: int
    oldest_ms: int | None

    @property
    def reaches(self) -> bool:
        """Whether the log has all of the range."""
        return self.oldest_ms is None or self.oldest_ms <= self.start_ms

    def json(self, limit: int) -> str:
        """One JSON object."""
        run = self.run
        totals = {
            channel: {
                "messages": run.messages[channel],
                "digests": run.digests[channel],
                "held": _by_code(run.held, channel),
                "notSent": _by_code(run.dropped, channel),
            }
            for channel in (*CHANNELS, "")
            if channel or _by_code(run.dropped, "")
        }
        document = {
            "userId": self.user.user_id,
            "timezone": self.user.timezone,
            "from": iso_ms(self.start_ms),
            "to": iso_ms(self.end_ms),
            "complete": self.reaches,
            "alerts": run.alerts,
            "subscribed": run.concerned,
            "notSubscribed": [
                {"code": code, "alerts": count, "example": run.why_unconcerned[code]}
                for code, count in run.unconcerned.most_common()
            ],
            "totals": {channel or "none": each for channel, each in totals.items()},
            "decisions": run.count,
            "decided": [self._document(each) for each in run.decisions[: limit or None]],
        }
        return orjson.dumps(document).decode()

    def show(self, limit: int) -> None:
        """For a person."""
        run, zone = self.run, ZoneInfo(self.user.timezone)
        name = f"{self.user.user_id} ({self.user.name})" if self.user.name else self.user.user_id
        span = f"from {shown(zone, self.start_ms)} to {shown(zone, self.end_ms)}"
        click.echo(printable(f"{name}, {span}, times of {zone.key}"))
        if run.decisions:
            click.echo()
            table = listing("when", "by", "", "about", "why")
            for each in run.decisions[: limit or None]:
                state = each.state
                what = {"queued": "sent", "dropped": "not sent"}.get(state.status, state.status)
                reason = local_times(state.reasons[-1].text, zone) if state.reasons else ""
                cells = (shown(zone, state.decidedAt), state.channel or "", what, self._about(each), reason)
                table.add_row(*(Text(printable(cell)) for cell in cells))
            show_listing(table)
            self._say_rest(limit)
        click.echo()
        click.echo(
            f"{run.alerts:,} alert{'s'[: run.alerts != 1]} triggered; "
            f"{self.user.user_id} is subscribed to {run.concerned:,} of them"
        )
        for code, count in run.unconcerned.most_common():
            click.echo(printable(f"  {count:,} others: {run.why_unconcerned[code]} ({code})"))
        for channel in CHANNELS:
            click.echo(f"{channel}: {self._total(channel)}")
        if run.dropped and (several := _by_code(run.dropped, "")):
            click.echo(f"on no channel: {_list(several)}")
        if not self.reaches:
            assert self.oldest_ms is not None
            click.echo(f"the log goes back to {shown(zone, self.oldest_ms)} only", err=True)

    def _say_rest(self, limit: int) -> None:
        count = min(limit or MOST_KEPT, len(self.run.decisions))
        if count < self.run.count:
            kept = f" (at most {MOST_KEPT:,})" if self.run.count > MOST_KEPT else ""
            click.echo(f"{count:,} of {self.run.count:,} decisions; --limit 0 shows all{kept}", err=True)

    def _total(self, channel: str) -> str:
        run = self.run
        messages, digests = run.messages[channel], run.digests[channel]
        said = [f"{messages:,} message{'s'[: messages != 1]}"]
        if digests:
            said.append(f"of these {digests:,} digest{'s'[: digests != 1]}")
        if held := _by_code(run.held, channel):
            said.append(f"alerts held: {_list(held)}")
        if dropped := _by_code(run.dropped, channel):
            said.append(f"not sent: {_list(dropped)}")
        return "; ".join(said)

    def _about(self, decided: Decided) -> str:
        state = decided.state
        if state.kind == "digest":
            if decided.counts:
                return f"digest: {', '.join(f'{each.ruleName} {each.alerts:,}' for each in decided.counts)}"
            return "digest"
        step = f"step {state.step}: " if state.step else ""
        return f"{step}{_KINDS.get(state.kind, '')}{self._named(state)}"

    def _named(self, state: NotificationState) -> str:
        rule = self.run.rule_names.get(state.ruleId, state.ruleId)
        if len(state.alertIds) > 1:
            return f"{len(state.alertIds):,} alerts, the first {rule} on {state.deviceId}"
        return f"{rule} on {self.run.device_names.get(state.deviceId, state.deviceId)}"

    def _document(self, decided: Decided) -> dict[str, Any]:
        state, zone = decided.state, ZoneInfo(self.user.timezone)
        found = {
            "time": iso_ms(state.decidedAt),
            "local": wall(zone, state.decidedAt).isoformat(timespec="seconds"),
            "status": state.status,
            "channel": state.channel,
            "kind": state.kind,
            "step": state.step or None,
            "notificationId": state.notificationId,
            "alertId": state.alertId,
            "alertIds": list(state.alertIds) or None,
            "ruleId": state.ruleId,
            "deviceId": state.deviceId,
            "until": None if state.until is None else iso_ms(state.until),
            "counts": [each.model_dump() for each in decided.counts] or None,
            "reasons": [each.model_dump() for each in state.reasons],
        }
        return {name: value for name, value in found.items() if value is not None}


def _by_code(counts: Counter[tuple[str, str]], channel: str) -> dict[str, int]:
    found = Counter({code: count for (where, code), count in counts.items() if where == channel and count})
    return dict(found.most_common())


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in counts.items())
