"""Is a PostgreSQL server running on this data directory, and which process is it?

The number in `postmaster.pid` proves nothing: after a crash or a restart of the machine it may belong to anybody. So a
process counts only if it has the right owner, runs a `postgres`, and was started with `-D` and this very directory.
"""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: States in `/proc/PID/stat` of a process that has ended: a zombie, and one that is just being reaped.
ENDED = ("Z", "X")


class Running(NamedTuple):
    """A verified server; `socket_folder` and `status` are empty until it has written them."""

    pid: int
    socket_folder: str
    status: str


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server of one data directory, whoever started it.

    Args:
        cluster: the data directory, resolved.
        uid: whom its process must belong to.
    """

    cluster: Path
    uid: int

    def find(self) -> Running | None:
        """The server, or None if there is none. Reads three small files."""
        pid, lines = self._pid_file()
        if not self._is_server(pid):
            return None
        # Line by line: pid, data directory, start time, port, socket folder, address, shared memory, status.
        return Running(pid, *(lines[index].strip() if len(lines) > index else "" for index in (4, 7)))

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal; nothing happens if there is none."""
        pid, _ = self._pid_file()
        handle = _pin(pid)
        try:
            with contextlib.suppress(ProcessLookupError):
                if not self._is_server(pid):
                    return
                if handle is None:
                    os.kill(pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)

    def remove_stale_pid_file(self) -> None:
        """Remove `postmaster.pid` if its number is taken, but not by the server: PostgreSQL would refuse to start.

        It may have passed to another process, or be that of a dead server that nobody has reaped. A number that is free
        is left to PostgreSQL, which first looks at the shared memory that the file names.
        """
        pid, _ = self._pid_file()
        if _is_taken(pid) and not self._is_server(pid):
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _is_server(self, pid: int) -> bool:
        process = _process(pid)
        if process is None or process.uid != self.uid or not process.is_postgres:
            return False
        # The title of a server's children is `postgres: ...`; only the server itself keeps its arguments.
        return process.arguments[1:3] == ["-D", str(self.cluster)]

    def _pid_file(self) -> tuple[int, list[str]]:
        """Its number (0 if there is none) and all lines."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        # Single-user PostgreSQL writes a negative number; whoever runs that by hand must end it by hand.
        return int(lines[0]) if lines and lines[0].strip().isdigit() else 0, lines


class _Process(NamedTuple):
    uid: int
    arguments: list[str]
    #: The program, not what it calls itself, where that can be seen.
    is_postgres: bool


def process_lives(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent does not count."""
    return _process(pid) is not None


def _pin(pid: int) -> int | None:
    """A handle of a process, which does not pass on to another as its number may; None where there is no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # macOS, old kernels, sandboxes
        return None


def _is_taken(pid: int) -> bool:
    """Whether the kernel knows the number; that includes processes that have ended and wait for their parent."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # asks, sends nothing
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def _process(pid: int) -> _Process | None:
    if pid <= 0:
        return None
    return _from_proc(pid) if sys.platform == "linux" else _from_ps(pid)


def _from_proc(pid: int) -> _Process | None:
    folder = Path("/proc", str(pid))
    try:
        arguments = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")[:-1]
        state = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        uid = folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in ENDED:
        return None
    # A process without arguments need not have ended: for a moment of `exec`, longer on a busy machine, none has any.
    program = arguments[0] if arguments else ""
    # Root in a container may not look at programs of other users; then owner and arguments must do.
    with contextlib.suppress(PermissionError, FileNotFoundError):
        program = os.readlink(folder / "exe").removesuffix(" (deleted)")
    return _Process(uid, arguments, Path(program).name == "postgres")


def _from_ps(pid: int) -> _Process | None:
    command = ["ps", "-ww", "-o", "uid=,stat=,args=", "-p", str(pid)]
    fields = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(maxsplit=2)
    if len(fields) < 3 or fields[1].startswith("Z"):
        return None
    # ps joins the arguments with spaces; headrace always passes `-D DIRECTORY -c ...`, which tells where each ends.
    program, _, rest = fields[2].rstrip("\n").partition(" -D ")
    return _Process(int(fields[0]), [program, "-D", rest.partition(" -c ")[0]], Path(program).name == "postgres")
