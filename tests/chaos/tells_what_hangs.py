"""The `headrace` command, which says on SIGUSR1 what it waits for. A script: `python tells_what_hangs.py worker …`."""

import asyncio
import faulthandler
import gc
import signal
import sys
from typing import Any

from headrace.cli.main import main


def tell(number: int, frame: object) -> None:
    """Print where every thread is, and every task of every loop."""
    faulthandler.dump_traceback(all_threads=True)
    for task in [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]:
        if not task.done():
            print(task.get_name(), *_frames(task.get_coro()), sep="\n  ", file=sys.stderr)
    sys.stderr.flush()


def _frames(waiting: Any) -> list[str]:
    """From the outermost coroutine to what it waits for; `Task.print_stack` knows only the first."""
    found = []
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        waiting = waiting.cr_await
    return [*found, repr(waiting)]


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    main()
