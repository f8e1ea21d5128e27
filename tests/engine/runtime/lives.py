"""Workers that die."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog
from tests.engine.runtime.running import committed, run_until


class Life:
    """A worker with an event loop of its own, which nobody runs on after its death.

    Args:
        folder: of the log.
        prepare: run before it begins: makes topics, appends.
        app_of: makes the app, with its agents and topics; its group is "g".
        read: topics that the app reads, for `run` to know when it is done.
    """

    #: The dead: collected as garbage their coroutines would go on.
    dead: ClassVar[list[Any]] = []

    def __init__(
        self,
        folder: Path,
        prepare: Callable[[EmbeddedLog], Awaitable[None]],
        app_of: Callable[[EmbeddedLog], Awaitable[App]],
        *read: str,
    ) -> None:
        self._app_of, self._read = app_of, read
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)
        self._log = EmbeddedLog(folder)
        self._loop.run_until_complete(prepare(self._log))

    def run(self, steps: int | None = None, after: Callable[[], bool] = lambda: True) -> None:
        """Run for so many steps of the loop, then die; or until everything is committed, then stop.

        Args:
            after: only steps when this holds count.
        """
        if steps is None:
            self._loop.run_until_complete(self._finish())
            self._loop.close()
            return
        Life.dead.extend([self._loop, self._loop.create_task(self._live())])
        left = steps
        while left > 0:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
            left -= after()
        # What it handed to the disk happens, or not; nothing after it does.
        self._log._writer._queue.put(None)
        self._log._writer._thread.join()

    async def _live(self) -> None:
        app = await self._app_of(self._log)
        await app.run(asyncio.Event())

    async def _finish(self) -> None:
        await run_until(await self._app_of(self._log), committed(self._log, "g", *self._read))
        await self._log.close()
