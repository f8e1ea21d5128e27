"""Reads the embedded log beside the writer: a connection and a thread of its own."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headrace.engine.embedded.writer import Job, Writer
from headrace.engine.errors import LogError


class ReadThread:
    """Runs reading jobs; a database in memory has only the writer's connection, so there they go through the writer."""

    def __init__(self, connection: sqlite3.Connection | None, writer: Writer) -> None:
        self._connection = connection
        self._writer = writer
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="headrace-log-reader")
        self._data_version = 0

    async def run(self, job: Job) -> Any:
        """Run `job` on a consistent view of the log.

        Raises:
            LogError: the file cannot be read.
        """
        if self._connection is None:
            return await self._writer.run(job)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, job, self._connection)
        except sqlite3.Error as error:
            raise LogError(f"the log could not be read: {error}") from error

    async def others_changed(self) -> bool:
        """Whether anybody committed since the last call (SQLite counts every connection but this one)."""
        if self._connection is None:
            return False
        version: int = await self.run(lambda connection: connection.execute("PRAGMA data_version").fetchone()[0])
        changed = version != self._data_version
        self._data_version = version
        return changed

    async def close(self) -> None:
        """End the thread and close the connection."""
        self._executor.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()
