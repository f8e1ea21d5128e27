"""A Mosquitto of a test's own, with the settings that the test needs."""

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from local_kafka.ports import free_ports

#: Seconds to start and to stop in.
PATIENCE = 120.0
#: Its defaults hold 1,000 messages for a subscriber and silently drop the rest, and send 20 at a time.
ROOMY = ("max_queued_messages 0", "max_inflight_messages 2000", "set_tcp_nodelay true")
ANYBODY = ("allow_anonymous true",)
LOGGED = ("error", "warning", "notice", "information", "subscribe")


def find_mosquitto() -> str | None:
    """Where it is installed; Debian puts it in /usr/sbin, which is not on every user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port that nobody listens on, and that no connection is given before it is taken."""
    (port,) = free_ports(1)
    return port


class Mosquitto:
    """Runs from `start` to `stop`, on one port of the loopback interface.

    Args:
        folder: for its configuration, its log and, if it is persistent, its database.
        listener: lines for its one listener: TLS, who may come in.
        settings: further lines.
        persistent: whether it keeps sessions over a restart; then it saves after every change.
    """

    def __init__(
        self,
        folder: Path,
        listener: Sequence[str] = ANYBODY,
        settings: Sequence[str] = ROOMY,
        *,
        persistent: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.host = "127.0.0.1"
        self._output = folder / "mosquitto.log"
        self._database = folder / "mosquitto.db"
        self._configuration = folder / "mosquitto.conf"
        database = [f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1"]
        lines = ["user root", f"listener {self.port} {self.host}", *listener, *settings]
        lines += [f"log_type {each}" for each in LOGGED]
        lines += ["persistence true", *database] if persistent else ["persistence false"]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "Mosquitto":
        """Start it and wait until it listens."""
        program = find_mosquitto()
        assert program is not None
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "-c", str(self._configuration)], stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            assert self._process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline, "mosquitto does not listen"
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """SIGTERM: a persistent one saves what it holds."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End it at once: kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def forget(self) -> None:
        """Remove what it has saved."""
        self._database.unlink(missing_ok=True)

    def said(self) -> str:
        """Its log."""
        return self._output.read_text(errors="replace")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0
