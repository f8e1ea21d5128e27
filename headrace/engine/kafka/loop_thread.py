"""An event loop in a thread of its own: Kafka hears from us while an agent computes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines on its own loop, for callers on another one.

    Heartbeats, fetches and produce requests live here. A pure-Python computation on the caller's loop slows them, as
    both share the interpreter's lock, but never holds them up for longer than a switch interval.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine's result, from the caller's loop. Cancelling the caller cancels the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run `function` on the thread's loop, soon; does nothing once stopped."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    async def stop(self) -> None:
        """Cancel what still runs, end the thread. A second time nothing happens."""
        if self._loop.is_closed():
            return
        await self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @staticmethod
    async def _cancel_all() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
