"""When a sink is tried again after a failure, and with how much at once."""

from collections.abc import Mapping, Set

from headrace.engine.errors import HeadraceError, RetryLater
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics
from headrace.engine.sink import SinkState, Standby

#: Where a sink may go from where it is. In words of a circuit breaker `running` is closed, `retrying` open, `probing`
#: half open.
#:
#:     connecting ──went well──▶ running ──failure──▶ retrying ──waited──▶ probing
#:                                  ▲                     ▲                 │ │
#:                                  │                     └─────failure─────┘ │
#:                                  └────────────────went well────────────────┘
#:
#: Who connects, in `connecting` and `probing`, may find that another process has the sink: `standby`. There it connects
#: again and again. From `connecting` and `standby`, too, a failure leads to `retrying`.
MOVES: Mapping[SinkState, Set[SinkState]] = {
    "connecting": {"running", "retrying", "standby"},
    "running": {"retrying"},
    "retrying": {"probing"},
    "probing": {"running", "retrying", "standby"},
    "standby": {"running", "retrying"},
}
#: Records of the first write after a failure. A server that has just come back is not to be met with a full batch.
PROBE_RECORDS = 256
#: A write that takes longer than this is too large for the server, seconds; the next one is half of it.
SLOW_WRITE = 10.0
#: A probe that fails after so long was too large, too, seconds.
SLOW_PROBE = 1.0
#: The longest wait is this, or so many times the first one: who is asked to wait five seconds may wait thirty.
LONGEST_WAIT, LONGEST_FACTOR = 5.0, 6.0


class CircuitBreaker:
    """Keeps the state of a sink, and makes it visible: the metric `headrace_sink_state`, and `/ready`.

    Waits double from one failure to the next. The first one is the error's own `RetryLater.after`, else
    `first_backoff`: a serialization failure is tried again at once, a full disk is not. Writes begin small after a
    failure, double while they go well, and shrink while they are slow.

    Args:
        name: of the sink.
        most: records of a write at most.
        metrics, health: told of every move.
        first_backoff, max_backoff: seconds before the first retry, where the error does not say; and before any.
    """

    def __init__(
        self,
        name: str,
        most: int,
        metrics: Metrics,
        health: Health | None = None,
        *,
        first_backoff: float = 0.1,
        max_backoff: float = 30.0,
    ) -> None:
        self._name = name
        self._most = most
        self._metrics = metrics
        self._health = health
        self._first_backoff = first_backoff
        self._max_backoff = max_backoff
        #: Records that the next write may have.
        self.limit = most
        #: Failures since it went well last, count.
        self.failures = 0
        #: What went wrong last, for a person.
        self.last_error = ""
        self._other = ""
        self.state: SinkState = "connecting"
        self._show()

    @property
    def trouble(self) -> str:
        """What keeps it from storing, for a person; empty when nothing does."""
        if self.state == "standby":
            return f"standby: {self._other}"
        return "" if self.state in ("connecting", "running") else f"{self.state}: {self.last_error}"

    def failed(self, error: HeadraceError, seconds: float = 0.0) -> float:
        """Something went wrong; for how many seconds to wait.

        Args:
            seconds: that the write took until then.
        """
        first = error.after if isinstance(error, RetryLater) else self._first_backoff
        if isinstance(error, Standby):
            self._other = str(error)
            self._move("standby")
            return min(self._max_backoff, first)
        self.last_error = str(error)
        slow = seconds >= (SLOW_PROBE if self.state == "probing" else SLOW_WRITE)
        self.limit = max(1, self.limit // 4) if slow else max(1, min(self.limit, PROBE_RECORDS))
        longest = min(self._max_backoff, max(LONGEST_WAIT, LONGEST_FACTOR * first))
        delay = min(longest, first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        self._metrics.count("headrace_sink_retries_total", sink=self._name)
        self._move("retrying")
        return delay

    def waited(self) -> None:
        """The wait is over."""
        if self.state == "retrying":
            self._move("probing")

    def succeeded(self, seconds: float = 0.0) -> None:
        """A write went well, or there was nothing to write; it took so many seconds."""
        if seconds >= SLOW_WRITE:
            self.limit = max(1, self.limit // 2)
        elif seconds < SLOW_WRITE / 3:
            self.limit = min(self._most, self.limit * 2)
        self.failures = 0
        self._move("running")

    def _move(self, state: SinkState) -> None:
        if state != self.state:
            assert state in MOVES[self.state], f"{self.state} to {state}"
            self.state = state
        self._show()

    def _show(self) -> None:
        self._metrics.set_state("headrace_sink_state", self.state, sink=self._name)
        if self._health is None:
            return
        component = f"sink {self._name}"
        if self.state in ("running", "standby"):
            self._health.ready(component)
        else:
            self._health.not_ready(component, self.trouble or "connecting")
