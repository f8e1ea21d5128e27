"""The log that a command looks into, beside a worker that may be running on it."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path

import click

from headrace.cli.logs import open_log
from headrace.cli.running import DEFAULT_FOLDER, Mistakes
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.clock import SystemClock
from headrace.engine.config import load
from headrace.engine.embedded.lock import WorkerLock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError, LogInUse
from headrace.engine.kafka.settings import SCHEME
from headrace.engine.log import Log
from headrace.engine.turn import Turn, take_turn, turn_group

#: Bytes that no embedded log has: whoever only looks must not drop what the worker's own settings keep.
UNLIMITED = 1 << 62
#: How often a group on Kafka is asked whether it still has owners, seconds.
OWNER_POLL = 0.5

log_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder of the worker, with the embedded log. Not needed where [log] url names a Kafka.",
)


def log_folder(settings: Settings, data: Path | None, *, make: bool = False) -> Path | None:
    """The folder of the embedded log; None where the log is on Kafka.

    Args:
        make: it need not be there: whoever opens the log makes it.
    Raises:
        ConfigError: there is no log in it, or none was named.
    """
    if settings.log.url.startswith(SCHEME):
        return None
    if data is None:
        found = ", ".join(str(path.parent) for path in sorted(DEFAULT_FOLDER.glob("*/log.sqlite")))
        there = f"; there are {found}" if found else ""
        raise ConfigError(f"--data is missing: name the data folder, or a Kafka as [log] url in --config{there}")
    if make and (data.is_dir() or not data.exists()):
        return data
    if not data.is_dir():
        raise ConfigError(f"--data: there is no folder {data}")
    if not (data / "log.sqlite").is_file():
        raise ConfigError(f"--data: {data} holds no log (log.sqlite); name the data folder of a worker, demo or replay")
    return data


@dataclass(frozen=True, slots=True)
class OpenedLog:
    """A log that was started, and what only its kind can do.

    Args:
        folder: of the embedded log; None on Kafka.
        session_timeout: seconds after which the group forgets a worker on Kafka that is silent.
    """

    log: Log
    folder: Path | None
    session_timeout: float = 0.0

    @asynccontextmanager
    async def turn(self, name: str, topic: str) -> AsyncIterator[Turn]:
        """Be the only process that does `name`; see `headrace.engine.turn`."""
        if self.folder is None:
            await self._wait_no_owner(
                turn_group(name), f"{name} is in hand already: {{owners}}. Wait until that is done"
            )
        with nullcontext() if self.folder is None else _locked(self.folder, name):
            async with take_turn(self.log, name, topic) as turn:
                yield turn

    @asynccontextmanager
    async def no_worker(self, group: str) -> AsyncIterator[None]:
        """Make sure that no worker of `group` runs; on the embedded log none can start meanwhile.

        Raises:
            LogInUse: one runs; says who.
        """
        if self.folder is None:
            await self._wait_no_owner(group, f"group {group} is at work: {{owners}}. Stop its workers first")
            yield
            return
        lock = WorkerLock(self.folder)
        try:
            lock.acquire()
        except LogInUse as error:
            raise LogInUse(f"a worker runs on {self.folder} ({self.worker() or 'starting'}); stop it first") from error
        try:
            yield
        finally:
            lock.release()

    async def _wait_no_owner(self, group: str, otherwise: str) -> None:
        """Kafka keeps the partitions of a process that was killed, or may come back, for the session timeout.

        Args:
            otherwise: what to say if there still is one after that; `{owners}` are their names.
        """
        clock = SystemClock()
        deadline = clock.monotonic() + self.session_timeout + OWNER_POLL
        told = False
        while owners := sorted(set((await self.log.owners(group)).values())):
            if clock.monotonic() > deadline:
                raise LogInUse(otherwise.format(owners=", ".join(owners)))
            if not told:
                click.echo(f"waiting until {', '.join(owners)} let go of their partitions", err=True)
                told = True
            await clock.sleep(OWNER_POLL)

    def worker(self) -> str | None:
        """The worker of the data folder, as far as its process id tells; None if none runs."""
        return None if self.folder is None else self.worker_of(self.folder)

    @staticmethod
    def worker_of(folder: Path) -> str | None:
        """The worker of `folder`; see `worker`."""
        try:
            number = int((folder / "worker.lock").read_text())
        except (OSError, ValueError):
            return None
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # somebody else's, but there
        return f"process {number}"


@asynccontextmanager
async def opened_log(settings: Settings, data: Path | None, *, make: bool = False) -> AsyncIterator[OpenedLog]:
    """The log of `settings`, or of the data folder, for as long as the `async with` lasts.

    Args:
        make: make an embedded log that is not there yet.
    Raises:
        ConfigError: there is none; see `log_folder`.
        LogError: it cannot be opened.
    """
    folder = log_folder(settings, data, make=make)
    if folder is None:
        # A name of its own each time: a worker's would take the worker's place in its group.
        nameless = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"instance": None})})
        kafka = await open_log(nameless, None, "command")
        try:
            yield OpenedLog(kafka, None, settings.kafka.session_timeout)
        finally:
            await kafka.close()
        return
    log = EmbeddedLog(folder, retention=inf, retention_bytes=UNLIMITED)
    try:
        await log.topics()  # the embedded log learns of partitions when somebody asks
        yield OpenedLog(log, folder)
    finally:
        await log.close()


def load_settings(wrong: Mistakes, config: Path | None, data: Path | None, *, make: bool = False) -> Settings | None:
    """The settings, with logging set up by them; mistakes, and those of the data folder, go to `wrong`."""
    settings = wrong.take(lambda: load(Settings, config))
    if settings is not None:
        logging.configure(settings.log_level)
        wrong.take(lambda: log_folder(settings, data, make=make))
    return settings


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """A lock on `folder` for everything of this name; it ends with the process, however it ends."""
    try:
        file = (folder / f"{name}.lock").open("a")
    except OSError as error:
        raise ConfigError(f"data folder {folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LogInUse(f"{name} is in hand already on {folder}. Wait until that is done") from error
        yield
