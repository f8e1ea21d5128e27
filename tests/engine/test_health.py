"""Health by progress, on a clock that the test moves."""

import pytest

from headrace.engine.clock import SteppedClock
from headrace.engine.health import Health, Progress


@pytest.fixture
def clock() -> SteppedClock:
    """A clock at 0."""
    return SteppedClock()


@pytest.fixture
def health(clock: SteppedClock) -> Health:
    """Stuck after 60 s, blocked after 10 s, ready when the agents are."""
    return Health(clock)


def look(health: Health, position: int, behind: int, hint: str = "", name: str = "t[0]") -> None:
    """One look at a component of a group."""
    health.observe("group g", {name: Progress(position, behind, hint)})


def test_nothing_reported_is_healthy(health: Health) -> None:
    """A process that has only just begun has no problem."""
    assert health.problems() == []


def test_lag_without_progress_is_a_problem(health: Health, clock: SteppedClock) -> None:
    """After `stuck_after` seconds, not before; it says who, where, how much is left, and what is known."""
    look(health, 7, 3)
    clock.advance(59_000)
    look(health, 7, 4, "retrying: connection refused")
    assert health.problems() == []

    clock.advance(1_000)
    look(health, 7, 4, "retrying: connection refused")

    (problem,) = health.problems()
    assert problem.component == "t[0]"
    assert problem.what == "stands at 7 for 60 s, with 4 to go: retrying: connection refused"
    assert problem.remedy
    assert problem.seconds == 60


def test_slow_progress_is_healthy(health: Health, clock: SteppedClock) -> None:
    """However much is left: as long as the position moves there is no problem."""
    for position in range(20):
        look(health, position, 1_000_000)
        assert health.problems() == []
        clock.advance(59_000)


def test_nothing_to_do_is_healthy(health: Health, clock: SteppedClock) -> None:
    """A position that stands still with nothing after it is no problem; time counts from the first look at more."""
    for _ in range(10):
        look(health, 7, 0)
        assert health.problems() == []
        clock.advance(50_000)

    look(health, 7, 1)
    clock.advance(59_000)
    look(health, 7, 1)

    assert health.problems() == []


def test_progress_ends_a_problem(health: Health, clock: SteppedClock) -> None:
    """As soon as the position moves."""
    look(health, 7, 3)
    clock.advance(70_000)
    look(health, 7, 3)
    assert len(health.problems()) == 1

    look(health, 8, 3)

    assert health.problems() == []


def test_seeking_back_is_progress(health: Health, clock: SteppedClock) -> None:
    """A position that goes back moves too: a database was restored, records are written again."""
    look(health, 7, 3)
    clock.advance(70_000)

    look(health, 2, 8)

    assert health.problems() == []


def test_partition_that_moved_away_is_forgotten(health: Health, clock: SteppedClock) -> None:
    """What is another worker's is no problem of this one, and one that comes back starts anew."""
    look(health, 7, 3)
    clock.advance(50_000)
    look(health, 1, 1, name="t[1]")
    clock.advance(50_000)
    look(health, 7, 3)

    assert health.problems() == []


def test_kinds_are_apart(health: Health, clock: SteppedClock) -> None:
    """A look at the sink says nothing about the agents."""
    look(health, 7, 3)
    clock.advance(60_000)
    look(health, 7, 3)

    health.observe("group sink", {"readings[0]": Progress(1, 0)})

    assert [problem.component for problem in health.problems()] == ["t[0]"]


def test_not_looking_is_a_problem(health: Health, clock: SteppedClock) -> None:
    """When nobody could tell the progress for as long, nobody can say that there is some."""
    look(health, 7, 0)

    clock.advance(60_000)

    (problem,) = health.problems()
    assert problem.component == "group g"
    assert "60 s" in problem.what


def test_broken_is_a_problem_until_repaired(health: Health, clock: SteppedClock) -> None:
    """At once, with the time of the first report."""
    health.broken("telemetry.raw[3]", "stopped: agent ingest failed", "repair it and start again")
    clock.advance(5_000)
    health.broken("telemetry.raw[3]", "stopped: agent ingest failed again", "repair it and start again")

    (problem,) = health.problems()
    assert problem.what == "stopped: agent ingest failed again"
    assert problem.seconds == 5

    health.repaired("telemetry.raw[3]")
    assert health.problems() == []


def test_blocked_loop_is_a_problem_and_not_ready(health: Health, clock: SteppedClock) -> None:
    """It says where the loop is, and hides what nobody could report meanwhile."""
    health.ready("agents")
    look(health, 7, 3)
    health.beat("agents")
    clock.advance(9_999)
    assert health.problems() == []

    clock.advance(60_000)

    (problem,) = health.problems()
    assert problem.component == "event loop agents"
    assert "test_blocked_loop_is_a_problem_and_not_ready" in problem.what
    assert [reason.component for reason in health.unready()] == ["event loop agents"]


def test_loop_that_ended_need_not_beat(health: Health, clock: SteppedClock) -> None:
    """A worker that stops is not blocked."""
    health.beat("kafka")
    health.stopped_beating("kafka")

    clock.advance(60_000)

    assert health.problems() == []


def test_longest_problem_comes_first(health: Health, clock: SteppedClock) -> None:
    """Whoever reads one line reads the cause."""
    health.broken("b", "", "")
    clock.advance(1_000)
    health.broken("a", "", "")

    assert [problem.component for problem in health.problems()] == ["b", "a"]


def test_ready_when_everybody_expected_is(clock: SteppedClock) -> None:
    """Not before the last of them says so."""
    health = Health(clock, expects=("agents", "mqtt"))
    clock.advance(2_000)
    assert {(reason.component, reason.seconds) for reason in health.unready()} == {("agents", 2), ("mqtt", 2)}

    health.ready("agents")
    assert [reason.component for reason in health.unready()] == ["mqtt"]

    health.ready("mqtt")
    assert health.unready() == []


def test_rebalance_is_not_ready_but_healthy(health: Health, clock: SteppedClock) -> None:
    """A worker whose partitions are given out anew takes no part for a while; the reason may change meanwhile."""
    health.ready("agents")
    health.not_ready("agents", "rebalancing")
    clock.advance(3_000)
    health.not_ready("agents", "restoring tables")

    (reason,) = health.unready()
    assert (reason.why, reason.seconds) == ("restoring tables", 3)
    assert health.problems() == []


def test_long_hint_is_cut(health: Health, clock: SteppedClock) -> None:
    """An error message of any length does not fill the answer."""
    look(health, 7, 3, "x" * 100_000)
    clock.advance(60_000)
    look(health, 7, 3, "x" * 100_000)

    (problem,) = health.problems()

    assert len(problem.what) < 600
