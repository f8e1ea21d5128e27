"""What a run ends with: the ledger and its figures, for a person or as one JSON object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import orjson
from rich.console import Console
from rich.table import Table

from headrace.engine.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Latency:
    """Real milliseconds from the publish of a message to its committed row; None when none was measured."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a data folder, from its first message on; rate and latency are of this run.

    Args:
        ledger: what became of every message.
        alerts, anomalies, rollups: alerts triggered, anomalies found and windows closed, as stored.
        messages_per_second: stored in this run, per real second.
        seconds: how long this run took, real.
        sent: records in the topics that agents of the user's own send to.
    """

    ledger: Ledger
    alerts: int
    anomalies: int
    rollups: int
    messages_per_second: float
    seconds: float
    latency_ms: Latency | None = None
    sent: Mapping[str, int] = field(default_factory=dict)

    def json(self, **more: object) -> str:
        """One JSON object, with what the caller adds."""
        fields = asdict(self)
        del fields["ledger"]
        balanced = self.ledger.difference == 0
        return orjson.dumps({**self.ledger._asdict(), "balanced": balanced, **fields, **more}).decode()

    def show(self, console: Console) -> None:
        """Print it for a person."""
        table = Table(title="ledger", title_justify="left", show_header=False, box=None, padding=(0, 2))
        table.add_column(justify="left")
        table.add_column(justify="right")
        for name, value in self.ledger._asdict().items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        balance = "balanced" if self.ledger.difference == 0 else f"[red]off by {self.ledger.difference:,}[/red]"
        table.add_row("", balance)
        console.print(table)
        console.print(f"alerts {self.alerts:,}   anomalies {self.anomalies:,}   closed windows {self.rollups:,}")
        for topic, count in self.sent.items():
            console.print(f"{topic} {count:,}", highlight=False)
        line = f"{self.messages_per_second:,.0f} messages/s stored over {self.seconds:.1f} s"
        if self.latency_ms is not None and self.latency_ms.p50 is not None and self.latency_ms.p99 is not None:
            line += f"   publish to committed row: p50 {self.latency_ms.p50:.0f} ms, p99 {self.latency_ms.p99:.0f} ms"
        console.print(line)


def iso_time(time_ms: int) -> str:
    """ISO 8601 to the second, UTC, from ms since 1970."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
