"""One broker: a Java process with a folder of its own for properties, data and log."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_kafka.java import Java
from local_kafka.probe import Metadata, accepts, metadata

#: Seconds until a start has failed. A start takes 2 to 5 s, many times that on a machine with other work.
START_TIMEOUT = 90.0
#: Seconds for a clean stop before it is killed.
STOP_TIMEOUT = 30.0
#: Characters of a line of its log that an error shows.
LINE_LENGTH = 300
_ERROR = re.compile(r" ERROR |Exception")

# The kernel kills a broker with the thread that started it, so that must be a thread that lives as long as the process.
_launcher = ThreadPoolExecutor(1, thread_name_prefix="local_kafka")


class StartError(Exception):
    """A broker did not start; the message shows the errors in its log."""


class Broker:
    """A broker that can be started, stopped, killed and started again on the same ports and data.

    Args:
        node: its number, from 0.
        port: of its plain-text listener on 127.0.0.1.
        others: ports of the further listeners for clients, which open one by one.
        folder: for everything it writes; made here.
        java: what runs it.
        settings: what goes into `server.properties`.
    """

    def __init__(
        self, node: int, port: int, others: Sequence[int], folder: Path, java: Java, settings: Mapping[str, str]
    ) -> None:
        self.node = node
        self.data = Path(settings["log.dirs"])
        self.properties = folder / "server.properties"
        self._port = port
        self._others = others
        self._log = folder / "broker.log"
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def launch(self) -> None:
        """Start the process and return at once."""
        if self.pid is not None:
            raise StartError(f"broker {self.node} is already running")
        command = [*_die_with_parent(), *self._java.broker_command(self.properties)]
        self._process = _launcher.submit(self._popen, command).result()

    def wait_until(self, condition: Callable[[Metadata], bool]) -> None:
        """Block until it serves and what it knows fulfils the condition.

        Raises:
            StartError: its process ended, or `START_TIMEOUT` passed.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not ((known := metadata(self._port)) and condition(known)):
            if self.pid is None:
                raise StartError(f"broker {self.node} is not running:\n{self._log_digest()}")
            if time.monotonic() > deadline:
                raise StartError(f"broker {self.node} was not ready in {START_TIMEOUT:.0f} s:\n{self._log_digest()}")
            time.sleep(0.05)

    def serves(self, known: Metadata) -> bool:
        """Whether the controllers let it serve, at every listener; for `wait_until`."""
        return self.node in known.brokers and all(map(accepts, self._others))

    def stop(self) -> None:
        """End it cleanly (SIGTERM): it hands over its partitions first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def _log_digest(self) -> str:
        """The errors in the log, which may be far from its end, and its end."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        errors = [line[:LINE_LENGTH] for line in lines if _ERROR.search(line)]
        end = [line[:LINE_LENGTH] for line in lines[-10:]]
        return "\n".join([*errors[:20], "... end of its log:", *end])

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal must not reach it.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _die_with_parent() -> list[str]:
    """On Linux the kernel ends the broker with us, `kill -9` included. Elsewhere nothing does."""
    setpriv = shutil.which("setpriv") if os.uname().sysname == "Linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
