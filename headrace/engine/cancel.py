"""Ending tasks."""

import asyncio
from typing import Any

#: Seconds after which a task that goes on is cancelled once more.
AGAIN = 5.0


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they have ended; those that have, and None, are passed over.

    More than once if need be: `asyncio.wait_for` of Python 3.11 forgets a cancellation that comes with its result, and
    a loop around it goes on for ever.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
