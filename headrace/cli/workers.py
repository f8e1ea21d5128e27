"""Several processes of one command on one machine, and what happens when one of them ends."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog

from headrace.cli.running import stop_on_signals
from headrace.connectors import die_with_parent
from headrace.engine.clock import SystemClock
from headrace.engine.errors import ConfigError

#: Seconds before a worker that failed is started again; doubles with every failure up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: A worker that ran this long has recovered: its next failure counts as the first, seconds.
STEADY = 60.0
#: Seconds that workers get to finish once told to.
STOP_TIMEOUT = 20.0
MISTAKE = 2

log = structlog.get_logger(__name__)


class Workers:
    """Runs worker processes and starts those anew that fail.

    Args:
        commands: arguments of `headrace`, per process.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        guard = [sys.executable, die_with_parent.__file__, str(os.getpid())]
        self._commands = [[*guard, sys.executable, "-m", "headrace.cli.main", *each] for each in commands]
        self._clock = SystemClock()

    async def run(self) -> None:
        """Run until told to stop.

        Raises:
            ConfigError: the workers refuse to start; they have said why.
        """
        stop = stop_on_signals()
        mistake = False
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(number, stop)) for number in range(len(self._commands))]
            for keeper in keepers:
                mistake |= await keeper
        if mistake:
            raise ConfigError("the workers did not start; see above")

    async def _keep(self, number: int, stop: asyncio.Event) -> bool:
        """Keep one worker running; whether it ended over a mistake in the configuration."""
        pause, failed = FIRST_PAUSE, False
        while not stop.is_set():
            began = self._clock.monotonic()
            code = await self._run_once(number, stop)
            if stop.is_set() or code == 0:
                break
            if code == MISTAKE and not failed:
                stop.set()
                return True
            if self._clock.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            failed = True  # from now on a mistake is something that went away, such as Kafka, and comes back
            log.error("worker_failed", worker=number, code=code, again_in=pause)
            await _wait(stop, pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        return False

    async def _run_once(self, number: int, stop: asyncio.Event) -> int:
        # A session of its own: Ctrl-C reaches the parent alone, which passes it on once.
        process = await asyncio.create_subprocess_exec(*self._commands[number], start_new_session=True)
        ended, asked = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait([ended], timeout=STOP_TIMEOUT)
            if not ended.done():
                process.kill()
        return await ended


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    waiting = asyncio.ensure_future(stop.wait())
    await asyncio.wait([waiting], timeout=seconds)
    waiting.cancel()
