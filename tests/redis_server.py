"""A Redis of a test's own, on a Unix socket, that can be killed, emptied and made slow."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import redis

#: Seconds to start and to stop in.
PATIENCE = 120.0


def find_redis() -> str | None:
    """Where `redis-server` is, or `valkey-server`, which does the same."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """Runs from `start` to `stop`, on a Unix socket.

    Args:
        folder: for its dump and its log.
        settings: further arguments of the command.
    """

    def __init__(self, folder: Path, settings: Sequence[str] = ()) -> None:
        self._folder = folder
        self._settings = list(settings)
        # The path of a socket has at most 107 bytes; those of tests' own folders are longer.
        self.socket = Path(tempfile.mkdtemp(prefix="redis-")) / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"unix://{self.socket}"

    def start(self) -> "RedisServer":
        """Start it and wait until it answers."""
        program = find_redis()
        assert program is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._folder), "--save", ""]
        with (self._folder / "redis.log").open("ab") as output:
            command = [program, *arguments, *self._settings]
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        return self

    def client(self) -> "redis.Redis":
        """A client for the test itself."""
        return redis.Redis.from_url(self.url)

    def save(self) -> None:
        """Write everything to its dump, which a start loads."""
        with self.client() as client:
            client.save()

    def forget(self) -> None:
        """Remove its dump."""
        (self._folder / "dump.rdb").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once: kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let it stand still: it takes requests and answers none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
