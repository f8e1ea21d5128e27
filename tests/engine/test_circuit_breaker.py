"""The circuit breaker: when a sink is tried again, and with how much."""

import pytest

from headrace.engine.circuit_breaker import MOVES, PROBE_RECORDS, SLOW_WRITE, CircuitBreaker
from headrace.engine.clock import ManualClock
from headrace.engine.errors import Disconnected, RetryLater
from headrace.engine.health import Health
from headrace.engine.metrics import Metrics
from headrace.engine.sink import Standby


@pytest.fixture
def metrics() -> Metrics:
    """What the breaker tells."""
    return Metrics()


@pytest.fixture
def breaker(metrics: Metrics) -> CircuitBreaker:
    """A breaker that has connected."""
    breaker = CircuitBreaker("store", 16_384, metrics)
    breaker.succeeded()
    return breaker


def fail(breaker: CircuitBreaker, error: Disconnected | RetryLater, times: int, seconds: float = 0.0) -> list[float]:
    """The waits after so many failures in a row."""
    waits = []
    for _ in range(times):
        waits.append(breaker.failed(error, seconds))
        breaker.waited()
    return waits


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (Disconnected("gone"), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
        (RetryLater("deadlock", 0.05), [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]),
        (RetryLater("disk full", 5.0), [5.0, 10.0, 20.0, 30.0, 30.0, 30.0, 30.0, 30.0]),
        (RetryLater("too many", 1.0), [1.0, 2.0, 4.0, 6.0, 6.0, 6.0, 6.0, 6.0]),
        (Standby("another one", 2.0), [2.0] * 8),
    ],
)
def test_pace(breaker: CircuitBreaker, error: Disconnected | RetryLater, waits: list[float]) -> None:
    """Every kind of failure has its own pace; standing by is no failure and does not slow down."""
    fresh = CircuitBreaker("store", 100, Metrics())

    assert fail(fresh, error, 8) == pytest.approx(waits)


def test_probe_is_small_and_grows(breaker: CircuitBreaker) -> None:
    """After a failure the first write is small; the next ones double up to the full size."""
    fail(breaker, Disconnected("gone"), 5)
    limits = []
    while breaker.limit < 16_384:
        limits.append(breaker.limit)
        breaker.succeeded(0.1)

    assert limits == [PROBE_RECORDS * 2**n for n in range(6)]


def test_slow_writes_shrink(breaker: CircuitBreaker) -> None:
    """A server too slow for the size of a write gets smaller ones, until they are done in time or have one record."""
    breaker.succeeded(SLOW_WRITE)
    halved = breaker.limit
    fail(breaker, Disconnected("timed out"), 20, SLOW_WRITE)

    assert (halved, breaker.limit) == (8_192, 1)


def test_state_is_shown(breaker: CircuitBreaker, metrics: Metrics) -> None:
    """Every move is in the metric."""

    def shown() -> list[str]:
        return [state for state in MOVES if metrics.value("headrace_sink_state", sink="store", state=state)]

    seen = [*shown()]
    breaker.failed(Disconnected("gone"))
    seen += shown()
    breaker.waited()
    seen += shown()
    breaker.succeeded()
    seen += shown()

    assert seen == ["running", "retrying", "probing", "running"]


def test_health_says_why() -> None:
    """A sink that stores nothing is not ready, and says why; one that stands by is."""
    health = Health(ManualClock(), expects=())
    breaker = CircuitBreaker("store", 100, Metrics(), health)
    breaker.succeeded()

    breaker.failed(Disconnected("no route to the database"))
    (reason,) = health.unready()
    breaker.waited()
    breaker.failed(Standby("another one"))

    assert reason[:2] == ("sink store", "retrying: no route to the database")
    assert health.unready() == []
    assert breaker.trouble == "standby: another one"
    assert breaker.last_error == "no route to the database"


def test_moves_are_the_only_ones() -> None:
    """Every state can be left, and from every one the way leads to work."""
    reached = {"running"}
    for _ in MOVES:
        reached |= {state for state, targets in MOVES.items() if targets & reached}

    assert reached == set(MOVES)
