"""Runs a command that ends when its parent does. A script: `python die_with_parent.py PARENT_PID COMMAND...`.

On Linux the kernel sends SIGTERM when the parent ends, `kill -9` included; the setting survives the exec. Elsewhere
this only runs the command. It imports nothing of headrace, so that it costs 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arrange the signal and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent process has already gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
