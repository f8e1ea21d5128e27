"""Runs the programs of the embedded PostgreSQL: `initdb` once per data folder, `postgres` at every start."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from headrace.connectors.postgres_place import Account, Place
from headrace.engine.errors import ConfigError

#: Name of the superuser, who owns everything.
USER = "headrace"
#: Only part of the socket's name: the server listens on no network.
PORT = 5432

INITDB = (
    f"--username={USER}",
    "--encoding=UTF8",
    # PostgreSQL's own locale: sorts by code point, the same on every system and after every upgrade of its libraries.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    # Whoever can enter the socket's folder (0700) is trusted.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
    # A thousand small files: one sync of the file system beats a thousand syncs, most of all on a busy disk.
    *(["--sync-method=syncfs"] if sys.platform == "linux" else []),
)
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    # One store without replicas: nothing is logged for them. Replaying a full log after a crash takes a few seconds.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "log_checkpoints": "off",
}


async def initialise(place: Place) -> None:
    """Make the data directory: all of it or nothing, and safely on disk. Takes 0.6 s.

    Raises:
        ConfigError: it cannot be made; the message holds what `initdb` said.
    """
    folder = place.cluster.parent
    for leftover in folder.glob("draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # A new name each time: after a `kill -9` an `initdb` may still be writing to the old one.
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder))
    place.account.give(draft)
    code, output = await _run([str(place.programs / "initdb"), *INITDB, "-D", str(draft)], place.account)
    if code != 0:
        raise ConfigError(f"could not make a database in {draft}:\n{output.strip()}")
    _publish(draft, place.cluster)


async def launch(place: Place, socket_folder: str, log: Path) -> int:
    """Start a server and return its process id; whether it comes up is for the caller to see.

    It is nobody's child (asyncio would kill a child on exit), has a session of its own, and outlives this process.

    Args:
        socket_folder: where its socket goes; must belong to the account.
        log: gets all its output, after what is there. Only its owner can read it: it quotes statements that fail.

    Raises:
        ConfigError: the program cannot be run as the account.
    """
    settings = {**SETTINGS, "unix_socket_directories": f'"{socket_folder}"'}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    # `-D` and `-c` in this order are how `Postmaster` knows it again.
    server = [str(place.programs / "postgres"), "-D", str(place.cluster), *options]
    shell = ["/bin/sh", "-c", '"$@" </dev/null >&2 & echo $!', "sh"]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
        code, output = await _run([*shell, *server], place.account, file)
    if code != 0:
        raise ConfigError(f"could not run {server[0]}: the shell ended with code {code}")
    return int(output)


def _publish(draft: Path, cluster: Path) -> None:
    """Rename for good: a data directory that goes back to its draft's name in a power cut would be thrown away."""
    draft.rename(cluster)
    handle = os.open(cluster.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _run(command: list[str], account: Account, errors: BinaryIO | int = subprocess.STDOUT) -> tuple[int, str]:
    """Run a program as `account`, in a session of its own; returns its code and output. Cancelled, it is killed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # ours may hold secrets, or PGDATA
            umask=0o077,
            start_new_session=True,
            **account.process_options,
        )
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]} as user {account.uid}: {error.strerror}") from error
    try:
        output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
