"""The one thread that changes the embedded log: everything waiting goes into one SQLite transaction, one sync."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from headrace.engine.errors import LogError

#: A piece of work on the connection; what it returns is handed to whoever waits.
Job = Callable[[sqlite3.Connection], Any]

#: Jobs that share one transaction at the most, so that the first does not wait for ever.
MAX_JOBS_PER_TRANSACTION = 256


class Writer:
    """Runs jobs on one connection, in order, in a thread of its own; group commit.

    Args:
        chore: runs after every transaction, in one of its own: nobody waits for it but who comes meanwhile.
    After the first failed transaction the writer refuses everything: nobody can tell what of a failed sync reached the
    disk, so going on could acknowledge what is lost (see `test_failed_sync_acknowledges_nothing`).
    """

    def __init__(self, connection: sqlite3.Connection, chore: Job | None = None) -> None:
        self._connection = connection
        self._chore = chore
        self._queue: queue.SimpleQueue[tuple[Job, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._failure: LogError | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-log-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> LogError | None:
        """Why the log takes nothing more, or None."""
        return self._failure

    async def run(self, job: Job, then: Callable[[Any], None] | None = None) -> Any:
        """Run `job` in a transaction; returns when that is durable.

        Args:
            then: called with what the job returns, before this does, also if the caller is cancelled meanwhile.
        Raises:
            LogError: the transaction failed; nothing of it is visible.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if then is not None:
            future.add_done_callback(partial(_tell, then))
        self._queue.put((job, future))
        # The job runs whatever becomes of the caller: a cancelled caller must not cancel the future the thread sets.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            jobs = [first]
            closing = False
            while len(jobs) < MAX_JOBS_PER_TRANSACTION:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    closing = True
                    break
                jobs.append(job)
            self._commit(jobs)
            if closing:
                return

    def _commit(self, jobs: list[tuple[Job, asyncio.Future[Any]]]) -> None:
        results = self._transact([job for job, _ in jobs])
        _resolve([future for _, future in jobs], results, self._failure)
        if self._chore is not None:
            self._transact([self._chore])

    def _transact(self, jobs: list[Job]) -> list[Any]:
        if self._failure is not None:
            return []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [job(self._connection) for job in jobs]
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._failure = LogError(
                f"the log could not be written ({error}); nothing of it was acknowledged. "
                "Check the disk (space, permissions, health), then start again"
            )
            self._failure.__cause__ = error
        except LogError as error:  # a row that cannot be read; says what to do
            self._failure = error
        else:
            return results
        self._rollback()
        return []

    def _rollback(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            return  # the failure that led here is the one reported


def _tell(then: Callable[[Any], None], done: asyncio.Future[Any]) -> None:
    if done.exception() is None:
        then(done.result())


def _resolve(futures: list[asyncio.Future[Any]], results: list[Any], failure: LogError | None) -> None:
    def deliver() -> None:
        for index, future in enumerate(futures):
            if future.done():
                continue
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(results[index])

    loop = futures[0].get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)
