"""Who uses what lies in a folder: several processes at once, of which one at a time may set it up or put it away."""

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected

POLL = 0.02


@dataclass(slots=True)
class FolderUse:
    """Two file locks, which end with the process that holds them, `kill -9` included.

    `lock` is held by whoever has the turn to start or stop; `users` is shared by all who use what was started.

    Args:
        folder: where the two files are; must exist by the first turn.
        clock: for waiting.
        timeout: seconds to wait for a turn.
    """

    folder: Path
    clock: Clock
    timeout: float
    _share: int | None = field(default=None, init=False)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Only one process at a time is inside.

        Raises:
            Disconnected: another one did not come out in time.
        """
        give_up = self.clock.monotonic() + self.timeout
        while (turn := self._try_lock("lock", fcntl.LOCK_EX)) is None:
            if self.clock.monotonic() > give_up:
                raise Disconnected(f"another headrace has held {self.folder / 'lock'} for {self.timeout:g} s")
            await self.clock.sleep(POLL)
        try:
            yield
        finally:
            os.close(turn)

    @property
    def is_member(self) -> bool:
        """Whether we are among the users."""
        return self._share is not None

    def join(self) -> None:
        """Become a user. Call it in a turn."""
        if self._share is None:
            self._share = self._try_lock("users", fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be a user no more."""
        if self._share is not None:
            os.close(self._share)
        self._share = None

    def is_unused(self) -> bool:
        """Whether there are no users. Call it in a turn, after `leave`."""
        alone = self._try_lock("users", fcntl.LOCK_EX)
        if alone is None:
            return False
        os.close(alone)
        return True

    def _try_lock(self, name: str, kind: int) -> int | None:
        """An open file that holds the lock until it is closed, or None if others are in the way."""
        file = os.open(self.folder / name, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file
