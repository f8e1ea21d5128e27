"""One broker: a Java process with a folder of its own for properties, data and log."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_kafka.probe import live_brokers

#: Seconds until a start has failed. A start takes 2 to 5 s, many times that on a machine with other work.
START_TIMEOUT = 90.0
#: Seconds for a clean stop before it is killed.
STOP_TIMEOUT = 30.0
LOG_FORMAT = {
    "defaultLogLevel": "info",
    "showDateTime": "true",
    "dateTimeFormat": "yyyy-MM-dd HH:mm:ss.SSS",
    "logFile": "System.out",
}

# The kernel kills a broker with the thread that started it, so that must be a thread that lives as long as the process.
_launcher = ThreadPoolExecutor(1, thread_name_prefix="local_kafka")


class StartError(Exception):
    """A broker did not start; the message ends with its log."""


class Broker:
    """A broker that can be started, stopped, killed and started again on the same port and data.

    Args:
        node: its number, from 0.
        port: of its plain-text listener on 127.0.0.1.
        folder: for everything it writes; made here.
        java: command up to the main class.
        properties: what goes into `server.properties`.
    """

    def __init__(
        self, node: int, port: int, folder: Path, java: Sequence[str], properties: Mapping[str, str]
    ) -> None:
        self.node = node
        self.port = port
        self.log = folder / "broker.log"
        self.properties = folder / "server.properties"
        self._java = list(java)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def launch(self) -> None:
        """Start the process and return at once."""
        if self.pid is not None:
            raise StartError(f"broker {self.node} is already running")
        command = [*_die_with_parent(), *self._java, "kafka.Kafka", str(self.properties)]
        self._process = _launcher.submit(self._popen, command).result()

    def wait_ready(self, nodes: set[int]) -> None:
        """Block until it serves and sees all of `nodes` serve.

        Raises:
            StartError: its process ended, or `START_TIMEOUT` passed.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not nodes <= live_brokers(self.port):
            if self.pid is None:
                raise StartError(f"broker {self.node} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"broker {self.node} did not serve in {START_TIMEOUT:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it cleanly (SIGTERM): it hands over its partitions first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def log_tail(self, size_bytes: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size_bytes:] if self.log.exists() else ""

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
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


def java_command(java: str, class_path: str, options: Sequence[str]) -> list[str]:
    """The command up to the main class; the log goes to standard output."""
    logging = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in LOG_FORMAT.items()]
    return [java, *options, *logging, "-cp", class_path]


def _die_with_parent() -> list[str]:
    """On Linux the kernel ends the broker with us, `kill -9` included. Elsewhere nothing does."""
    setpriv = shutil.which("setpriv") if os.uname().sysname == "Linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
