"""The event loop's time, moved on by a test: what waits for it is over at once, and need not be set short for that."""

import asyncio


def skip(seconds: float) -> None:
    """What waits for a time within the next seconds has waited for it; the machine's own time goes on as it did."""
    loop = asyncio.get_running_loop()
    before = loop.time
    vars(loop)["time"] = lambda: before() + seconds
