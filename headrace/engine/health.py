"""Whether this process does its work, judged by progress: what `/health` and `/ready` answer."""

import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headrace.engine.clock import Clock

#: Event loops with a heart; the label `loop` of the metrics.
LoopName = Literal["agents", "kafka"]

#: Modules shown of a blocked event loop.
MOST_CALLS = 6
#: Longest hint shown, characters.
MAX_HINT = 500


class Progress(NamedTuple):
    """How far something has come.

    Args:
        position: any number that changes when it moves on.
        behind: what is left to do, count; with nothing left it need not move.
        hint: what is known about why it might stand still, for a person; may be empty.
    """

    position: int
    behind: int
    hint: str = ""


class Problem(NamedTuple):
    """Something that stands still.

    Args:
        component: who.
        what: what is wrong, for a person.
        remedy: what to do about it.
        seconds: for how long.
    """

    component: str
    what: str
    remedy: str
    seconds: float


class Unready(NamedTuple):
    """Why no work is done yet, or not now; `seconds`: for how long."""

    component: str
    why: str
    seconds: float


@dataclass(slots=True)
class _Watched:
    """Newest progress of a component, and when it last moved or had nothing to do."""

    progress: Progress
    moved: float


class Health:
    """Collects what components report, and answers whether the process is healthy and ready. Safe for any threads.

    Healthy: every component moves on or has nothing to do, nothing is reported broken, and the event loops beat.
    Ready: nobody has said `not_ready` without a `ready` since.

    Args:
        clock: tells how long; its monotonic seconds.
        stuck_after: seconds without progress, while there is something to do, that make a component stuck.
        blocked_after: seconds without a beat that make an event loop blocked.
        expects: components that are not ready until they say so.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        stuck_after: float = 60.0,
        blocked_after: float = 10.0,
        expects: Iterable[str] = ("agents",),
    ) -> None:
        self._clock = clock
        self._stuck_after = stuck_after
        self._blocked_after = blocked_after
        self._lock = threading.Lock()
        self._beats: dict[LoopName, tuple[float, int]] = {}
        self._watched: dict[str, dict[str, _Watched]] = {}
        self._looked: dict[str, float] = {}
        self._broken: dict[str, tuple[str, str, float]] = {}
        self._unready = {component: ("not started yet", clock.monotonic()) for component in expects}

    # -- what components report

    def observe(self, kind: str, seen: Mapping[str, Progress]) -> None:
        """The progress of all components of a kind; one that is not in `seen` any more is forgotten.

        Once called it must be called on: for `stuck_after` without a call the kind itself counts as stuck.
        """
        now = self._clock.monotonic()
        with self._lock:
            before, self._watched[kind], self._looked[kind] = self._watched.get(kind, {}), {}, now
            for component, progress in seen.items():
                last = before.get(component)
                moved = now
                if last is not None and min(progress.behind, last.progress.behind) > 0:
                    moved = last.moved if last.progress.position == progress.position else now
                self._watched[kind][component] = _Watched(progress, moved)

    def broken(self, component: str, what: str, remedy: str) -> None:
        """The component does not work and will not by itself."""
        with self._lock:
            _, _, since = self._broken.get(component, ("", "", self._clock.monotonic()))
            self._broken[component] = (what, remedy, since)

    def repaired(self, component: str) -> None:
        """Takes `broken` back."""
        with self._lock:
            self._broken.pop(component, None)

    def not_ready(self, component: str, why: str) -> None:
        """The component cannot work now."""
        with self._lock:
            _, since = self._unready.get(component, ("", self._clock.monotonic()))
            self._unready[component] = (why, since)

    def ready(self, component: str) -> None:
        """The component works."""
        with self._lock:
            self._unready.pop(component, None)

    def beat(self, loop: LoopName) -> None:
        """The event loop runs; called on it, by a `Heart`."""
        with self._lock:
            self._beats[loop] = (self._clock.monotonic(), threading.get_ident())

    def stopped_beating(self, loop: LoopName) -> None:
        """The event loop ends; no beat is expected any more."""
        with self._lock:
            self._beats.pop(loop, None)

    # -- what is asked

    def problems(self) -> list[Problem]:
        """What stands still, longest first; empty when the process is healthy."""
        now = self._clock.monotonic()
        with self._lock:
            found = self._blocked(now)
            if not found:  # else nobody could report progress either
                found = [*self._stuck(now), *self._unseen(now)]
            for component, (what, remedy, since) in self._broken.items():
                found.append(Problem(component, what, remedy, now - since))
        return sorted(found, key=lambda problem: -problem.seconds)

    def unready(self) -> list[Unready]:
        """Why there is no work done now, longest first; empty when the process is ready."""
        now = self._clock.monotonic()
        with self._lock:
            found = [Unready(name, why, now - since) for name, (why, since) in self._unready.items()]
            found += [Unready(blocked.component, blocked.what, blocked.seconds) for blocked in self._blocked(now)]
        return sorted(found, key=lambda reason: -reason.seconds)

    def _blocked(self, now: float) -> list[Problem]:
        return [
            Problem(
                f"event loop {loop}",
                f"blocked for {now - beat:.0f} s, in {_running(thread)}",
                "an agent computes too long at a time, or the process was paused; "
                "make batches smaller or move the work to a thread",
                now - beat,
            )
            for loop, (beat, thread) in self._beats.items()
            if now - beat >= self._blocked_after
        ]

    def _stuck(self, now: float) -> list[Problem]:
        found = []
        for component, watched in (item for kind in self._watched.values() for item in kind.items()):
            progress, still = watched.progress, now - watched.moved
            if progress.behind > 0 and still >= self._stuck_after:
                what = f"stands at {progress.position} for {still:.0f} s, with {progress.behind} to go"
                what += f": {progress.hint[:MAX_HINT]}" if progress.hint else ""
                remedy = "look for its errors in the log; starting again loses nothing"
                found.append(Problem(component, what, remedy, still))
        return found

    def _unseen(self, now: float) -> list[Problem]:
        return [
            Problem(
                kind,
                f"nobody could tell its progress for {now - looked:.0f} s",
                "look for collector_failed in the log; the log or the database may not be reachable",
                now - looked,
            )
            for kind, looked in self._looked.items()
            if now - looked >= self._stuck_after
        ]


def _running(thread: int) -> str:
    """What a thread does right now, from the innermost call outwards: the innermost of each module, with its line."""
    frame = sys._current_frames().get(thread)
    calls: dict[str, str] = {}
    while frame is not None and len(calls) < MOST_CALLS:
        module = frame.f_globals.get("__name__", "?")
        calls.setdefault(module, f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return ", called by ".join(calls.values()) or "a thread that has ended"
