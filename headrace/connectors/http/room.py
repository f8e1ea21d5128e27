"""What all requests hold together: bounded in bytes and number, and nobody keeps the room by being slow."""

from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

from headrace.connectors.http.problem import HttpProblem
from headrace.engine.clock import Clock

#: What waiting for ingest costs per message, bytes: ids and places, no payload.
WATCH_BYTES = 512


class Room:
    """What requests may hold together.

    A body that is still coming holds what of it has come, and only as long as nobody else needs it: where the room is
    full the body that has held most for longest (bytes x seconds) is given up. So clients that promise much, or send
    slowly, take no room from others, however many they are. A whole body is never given up: it waits for the log.

    Args:
        requests: with a whole body that are not appended yet; more are refused unread.
        most: bytes of bodies; half as much again for messages that wait for ingest.
        clock: for how long something is held.
    """

    def __init__(self, requests: int, most: int, clock: Clock) -> None:
        self._requests = requests
        self._most = most
        self._clock = clock
        self._coming: dict[Share, None] = {}
        self._watched = 0
        self.requests = self.bytes = 0
        #: Of these bytes, those of bodies that are still coming.
        self.loose = 0

    def enter(self) -> "Share":
        """For a request that is not read yet.

        Raises:
            HttpProblem: there is no place for it.
        """
        if self.requests >= self._requests:
            raise _busy("too many requests are on their way into the log")
        return Share(self)

    def check(self, size: int) -> None:
        """Look whether there could be room for so many bytes more.

        Raises:
            HttpProblem: what waits for the log leaves too little.
        """
        if self.bytes - self.loose + size > self._most:
            raise _busy("too many bytes are on their way into the log")

    def hold(self, share: "Share", size: int) -> None:
        """So many bytes more of a body that is coming; gives up others for it, or it.

        Raises:
            HttpProblem: it is given up.
        """
        self.check(size)
        now = self._clock.monotonic()
        while self.bytes + size > self._most:
            costly = max(self._coming, key=lambda each: each.cost(now))
            costly.give_up()
            if costly is share:
                raise lost()
        self.bytes += size
        self.loose += size
        share.grow(size, now)

    def join(self, share: "Share") -> None:
        """A body begins to come."""
        self._coming[share] = None

    def leave(self, share: "Share", size: int) -> None:
        """It is whole, or nothing more of it comes."""
        if share in self._coming:
            del self._coming[share]
            self.loose -= size

    def watch(self, count: int) -> bool:
        """Whether so many messages may wait for ingest; then they are counted."""
        if self._watched + count * WATCH_BYTES > self._most // 2:
            return False
        self._watched += count * WATCH_BYTES
        return True

    def unwatch(self, count: int) -> None:
        """They wait no longer."""
        self._watched -= count * WATCH_BYTES


class Share:
    """What one request holds, until the end of the `with`. It keeps the body while that comes."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0
        self._cost = self._since = 0.0
        self._has_place = self._is_lost = False
        self._watching = 0
        self._parts: list[bytes] = []
        self._wake: Callable[[], None] | None = None

    def check(self, size: int) -> None:
        """See `Room.check`."""
        self._room.check(size)

    def begin(self, wake: Callable[[], None]) -> None:
        """The body begins to come.

        Args:
            wake: called when it is given up; whoever reads it should call `check_kept` then.
        """
        self._wake = wake
        self._room.join(self)

    def keep(self, part: bytes) -> None:
        """A part of the body.

        Raises:
            HttpProblem: there is no room.
        """
        self.check_kept()
        self._room.hold(self, len(part))
        self._parts.append(part)

    def finish(self) -> bytes:
        """All of it is there: the body. From now on it has a place among those that wait for the log."""
        self.check_kept()
        self._room.leave(self, self._held)
        self._room.requests += 1
        self._has_place = True
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    def check_kept(self) -> None:
        """Raise an `HttpProblem` if it was given up."""
        if self._is_lost:
            raise lost()

    def watch(self, count: int) -> bool:
        """The log has it, and whoever calls has let go of the body: whether `count` messages may wait for ingest."""
        self._leave_place()
        self._let_go()
        may = self._room.watch(count)
        self._watching = count if may else 0
        return may

    def cost(self, now: float) -> tuple[float, int]:
        """Bytes x seconds that it has held, and bytes: the most is given up first."""
        return self._cost + self._held * (now - self._since), self._held

    def grow(self, size: int, now: float) -> None:
        """The room has given it so many bytes more."""
        self._cost, self._since = self.cost(now)[0], now
        self._held += size

    def give_up(self) -> None:
        """The room needs what it holds."""
        self._is_lost = True
        self._parts.clear()
        self._let_go()
        if self._wake is not None:
            self._wake()

    def _leave_place(self) -> None:
        self._room.requests -= self._has_place
        self._has_place = False

    def _let_go(self) -> None:
        self._room.leave(self, self._held)
        self._room.bytes -= self._held
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave_place()
        self._let_go()
        self._room.unwatch(self._watching)
        self._watching = 0


def lost() -> HttpProblem:
    """Why a body that was coming is not taken."""
    return _busy("others needed the room that this body held while it came slowly")


def _busy(why: str) -> HttpProblem:
    return HttpProblem(HTTPStatus.TOO_MANY_REQUESTS, "busy", f"{why}; send it again later")
