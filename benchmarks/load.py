"""Messages for the benchmarks: four-measure environmental JSON from 1,000 devices, appended before the clock starts."""

import random
from collections.abc import Awaitable, Callable, Iterator

import orjson

from headrace.engine.clock import ManualClock
from headrace.engine.intake import Intake

DEVICES = 1_000
START_MS = 1_750_000_000_000
CHUNK = 5_000


def messages(total: int, seed: int = 7, first: int = 0) -> Iterator[tuple[bytes, int, bytes]]:
    """`total` messages (device id, event time ms, payload): every device once a virtual second, in time order.

    Message number `first` is the first one.
    """
    rng = random.Random(seed)
    base = [rng.uniform(18, 26) for _ in range(DEVICES)]
    for number in range(first, first + total):
        second, device = divmod(number, DEVICES)
        time = START_MS + second * 1000 + device
        payload = {
            "timestamp": time,
            "temp": round(base[device] + rng.gauss(0, 0.3), 2),
            "humidity": round(55 + rng.gauss(0, 2), 1),
            "co2": round(450 + rng.gauss(0, 15)),
            "pm25": round(abs(12 + rng.gauss(0, 3)), 1),
        }
        yield b"sensor-%04d" % device, time, orjson.dumps(payload)


async def fill(
    intake: Intake,
    clock: ManualClock,
    total: int,
    wait: Callable[[], Awaitable[None]] | None = None,
    *,
    first: int = 0,
) -> None:
    """Append `total` messages from number `first` on; append time is event time.

    `wait` is awaited before each append.
    """
    chunk: list[tuple[bytes, int, bytes]] = []
    for message in messages(total, first=first):
        chunk.append(message)
        if len(chunk) == CHUNK:
            if wait is not None:
                await wait()
            await _append(intake, clock, chunk)
            chunk = []
    if chunk:
        await _append(intake, clock, chunk)


async def _append(intake: Intake, clock: ManualClock, chunk: list[tuple[bytes, int, bytes]]) -> None:
    devices, times, payloads = (list(column) for column in zip(*chunk, strict=True))
    clock.follow(times[-1])
    await intake.append(
        devices, payloads, device_type="environmental", profile="bench", sources=b"bench", timestamps=times
    )
