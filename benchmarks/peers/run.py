"""Runs one engine over a filled topic, and measures it from outside."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.engines import Engine
from peers.readings import Fleet
from peers.topics import INPUT, OUTPUT, Watch

GROUP = "peers"
#: Seconds between two looks at how far it is.
POLL = 0.05
#: Seconds that it gets to commit and end.
STOP_TIMEOUT = 60.0


class PeerError(Exception):
    """An engine failed; the message ends with what it said."""


@dataclass(frozen=True)
class Measured:
    """One run, without start-up and the messages that warm up.

    Args:
        messages: that were measured.
        seconds: until the last window was sent, or with exactly once its input committed.
        cpu_seconds: of all threads, until the process ended: all is committed by then.
        rss_mb: largest resident memory of the process.
        finished: whether it sent as many windows as there are before the time was up.
        log: the end of what it said.
    """

    messages: int
    seconds: float
    cpu_seconds: float
    rss_mb: float
    finished: bool
    log: str


async def run(engine: Engine, guarantee: str, bootstrap: str, fleet: Fleet, warm_up: int, timeout: float) -> Measured:
    """Run it until everything is sent and committed.

    Args:
        warm_up: messages before the clock starts.
        timeout: seconds after which it is stopped anyway.
    Raises:
        PeerError: it ended by itself with an error, or never began.
    """
    command = engine.command()
    with tempfile.TemporaryDirectory() as folder:
        state, said, log = (Path(folder, name) for name in ("state", "said", "log"))
        state.mkdir()
        job = {
            "bootstrap": bootstrap,
            "input": INPUT,
            "output": OUTPUT,
            "group": GROUP,
            "guarantee": guarantee,
            "commit_seconds": engine.commit_seconds(guarantee),
            "warm_up": warm_up,
            "folder": str(state),
        }
        process = _start([*command, json.dumps(job)], folder, said, log)
        try:
            ended_at, finished = await _done(engine, guarantee, bootstrap, fleet, process, timeout)
        finally:
            usage = await asyncio.to_thread(_stop, process)
        began = [json.loads(line) for line in said.read_text().splitlines() if line.startswith('{"cpu"')]
        if not began or (engine.ends and process.returncode):
            raise PeerError(f"{engine.name} failed with {process.returncode}:\n{log.read_text()[-3000:]}")
        messages = len(fleet) - warm_up - began[0]["beyond"]
        cpu = usage.ru_utime + usage.ru_stime - began[0]["cpu"]
        # ru_maxrss is in KiB on Linux.
        return Measured(
            messages, ended_at - began[0]["at"], cpu, usage.ru_maxrss / 1024, finished, log.read_text()[-3000:]
        )


def _start(command: Sequence[str], folder: str, said: Path, log: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as out, log.open("wb") as err:
        # On Linux the kernel ends it with us, `kill -9` included.
        setpriv = [found, "--pdeathsig", "KILL"] if (found := shutil.which("setpriv")) else []
        return subprocess.Popen([*setpriv, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder)


async def _done(
    engine: Engine, guarantee: str, bootstrap: str, fleet: Fleet, process: "subprocess.Popen[bytes]", timeout: float
) -> tuple[float, bool]:
    """When it was done, by the kernel's monotonic clock, and whether it was."""
    expected, deadline = fleet.windows(), time.monotonic() + timeout
    async with Watch(bootstrap, GROUP) as watch:
        while time.monotonic() < deadline:
            if _has_ended(process):
                return time.monotonic(), engine.ends
            if not engine.ends:
                if guarantee == "exactly-once":
                    done = await watch.committed() >= len(fleet)
                else:
                    done = await watch.sent() >= expected
                if done:
                    return time.monotonic(), True
            await asyncio.sleep(POLL)
    return time.monotonic(), False


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Without reaping it: its resources are asked for in `_stop`."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(process: "subprocess.Popen[bytes]") -> resource.struct_rusage:
    """End it cleanly; the resources that it used in its whole life."""
    if not _has_ended(process):
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while not _has_ended(process):
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.01)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage
