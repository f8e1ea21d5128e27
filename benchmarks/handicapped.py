"""Runs a benchmark with its main thread held up by a share of the time: `handicapped.py 0.2 SCRIPT ARGUMENTS`.

Every few milliseconds a signal interrupts whatever Python runs and burns that share of the CPU time that the thread has
used since. So what took it a second takes 1.2, in wall time and in CPU time alike; waiting, other threads and other
processes (brokers, databases) take as long as ever. No script knows of it.
"""

import runpy
import signal
import sys
import time
from pathlib import Path

#: Seconds between two delays.
EVERY = 0.005


class Handicap:
    """Burns `share` of the main thread's CPU time between two signals."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._since = time.thread_time()

    def start(self) -> None:
        """From now on."""
        signal.signal(signal.SIGALRM, self._delay)
        signal.setitimer(signal.ITIMER_REAL, EVERY)

    def stop(self) -> None:
        """No more, or a signal would end the interpreter while it shuts down."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _delay(self, *_: object) -> None:
        now = time.thread_time()
        until = now + self._share * (now - self._since)
        while (now := time.thread_time()) < until:
            pass
        self._since = now
        signal.setitimer(signal.ITIMER_REAL, EVERY)


def main() -> None:
    """Run the script in this process, delayed."""
    share, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    handicap = Handicap(float(share))
    handicap.start()
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        handicap.stop()


if __name__ == "__main__":
    main()
