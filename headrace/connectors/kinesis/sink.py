"""Messages into a stream of Amazon Kinesis instead of the log."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import ceil
from random import Random

import structlog

from headrace.connectors.kinesis.client import KinesisClient, open_client
from headrace.connectors.kinesis.record import Entry, entry
from headrace.connectors.kinesis.settings import KinesisSettings
from headrace.engine.clock import Clock
from headrace.engine.errors import RetryLater, first
from headrace.engine.intake import DeviceEvent, Mark
from headrace.engine.metrics import Metrics
from headrace.engine.records import Header

log = structlog.get_logger(__name__)

#: Of one request.
MAX_RECORDS, MAX_BYTES = 500, 5 << 20
#: First and longest limit of the wait before a repetition, seconds; it doubles while nothing is stored.
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 30.0

#: Records of one device that are not stored yet, in order, by partition key.
Queues = dict[str, deque[Entry]]


@asynccontextmanager
async def open_kinesis(
    settings: KinesisSettings, clock: Clock, metrics: Metrics | None = None
) -> AsyncIterator["KinesisIntake"]:
    """An intake for as long as the `async with` lasts.

    Raises:
        ConfigError: aiobotocore is not installed, or there is no such stream, region or access.
    """
    async with open_client(settings) as client:
        yield KinesisIntake(client, clock, metrics, requests=settings.requests)


class KinesisIntake:
    """Puts messages into a stream, as `headrace.engine.intake.Intake` puts them into the log.

    The partition key is the device id, the data the payload as it was sent (as a rule of AWS IoT does it);
    `headrace.connectors.kinesis.record` says what becomes of ids and payloads too large for Kinesis.

    At least once, **in order per device**. PutRecords stores some records of a request and refuses others, and promises
    no order. So a request holds one record of a device at most, and the next is sent when that is confirmed: b never
    comes before a. Repeating a refused record with all that followed it would show consumers b, a, b. A record may
    come twice when its answer got lost (out of order only if Kinesis carries out a request after it timed out here).
    The price: a device gets one record per answer through; those of others go along.

    While the stream takes nothing, `append` waits and tries, for ever; it holds what it was given and no more.

    Args:
        client: of the stream.
        clock: for waiting.
        metrics: told how it goes; ones of its own if left out.
        requests: under way at once, of different devices.
        random: jitter of the wait.
    """

    def __init__(
        self,
        client: KinesisClient,
        clock: Clock,
        metrics: Metrics | None = None,
        *,
        requests: int = 4,
        random: Random | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._requests = requests
        self._random = random or Random()
        # One append at a time: two could have a record of the same device under way.
        self._turn = asyncio.Lock()

    async def append(
        self,
        device_ids: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        device_type: str | Sequence[str] = "",
        profile: str | Sequence[str] = "",
        sources: Sequence[bytes] | bytes = b"",
        alarms: Sequence[int] = (),
        mark: Mark | None = None,
        headers: Mapping[str, Header] | None = None,
        events: Sequence[DeviceEvent] = (),
    ) -> None:
        """Put messages into the stream; when this returns all of them are there.

        A record has no headers and one lane: device type, profile and alarms are not told. Cancelled, some of the
        messages may be in the stream.

        Args:
            device_ids: the partition key per message, UTF-8, not empty.
            payloads: as the device sent them.
            sources: where each came from, or one for all; kept of payloads that are too large.
            mark: must be None: a stream keeps no position of a source.
            headers, events: must be empty, likewise: profiles with a format lead into the log only.
        Raises:
            ConfigError: no such stream, no access; do not acknowledge.
            LogError: Kinesis does not understand what we send; do not acknowledge.
        """
        if mark is not None:
            raise ValueError("Kinesis keeps no positions of sources: read files into the log")
        if headers or events:
            raise ValueError("Kinesis keeps no headers, and no messages that are no readings: lead them into the log")
        origins = [sources] * len(payloads) if isinstance(sources, bytes) else sources
        queues: Queues = {}
        oversized = 0
        for device_id, payload, source in zip(device_ids, payloads, origins, strict=True):
            each = entry(device_id, payload, source)
            queues.setdefault(each.key, deque()).append(each)
            oversized += each.data is not payload
        async with self._turn:
            began = self._clock.monotonic()
            try:
                async with asyncio.TaskGroup() as group:
                    for part in self._parts(queues):
                        group.create_task(self._drain(part))
            except ExceptionGroup as errors:
                raise first(errors) from None
            self._metrics.observe("headrace_kinesis_append_seconds", self._clock.monotonic() - began)
        self._metrics.count("headrace_kinesis_oversized_total", oversized)

    def _parts(self, queues: Queues) -> list[Queues]:
        """The devices dealt out to as many requests at a time as they fill, and are allowed."""
        sizes = sum(each[0].size for each in queues.values())
        count = min(self._requests, max(ceil(len(queues) / MAX_RECORDS), ceil(sizes / MAX_BYTES)))
        parts: list[Queues] = [{} for _ in range(count)]
        for place, (key, queue) in enumerate(queues.items()):
            parts[place % count][key] = queue
        return parts

    async def _drain(self, queues: Queues) -> None:
        """Store everything in `queues`, request by request."""
        failures = 0
        while queues:
            heads = _heads(queues)
            stored = await self._put(heads)
            for each, done in zip(heads, stored, strict=True):
                queue = queues.pop(each.key)
                if done:
                    queue.popleft()
                if queue:
                    queues[each.key] = queue  # behind the others: none waits for ever
            if all(stored):
                failures = 0
                continue
            failures = 0 if any(stored) else failures + 1
            limit = min(FIRST_BACKOFF * 2 ** min(failures, 16), LONGEST_BACKOFF)
            await self._clock.sleep(self._random.uniform(0, limit))

    async def _put(self, entries: list[Entry]) -> list[bool]:
        try:
            stored = await self._client.put(entries)
        except RetryLater as error:
            log.warning("kinesis_retry", stream=self._client.stream, records=len(entries), reason=str(error))
            self._metrics.count("headrace_kinesis_failures_total")
            stored = [False] * len(entries)
            self._metrics.count("headrace_kinesis_retries_total", len(entries), reason="failed")
        else:
            self._metrics.count("headrace_kinesis_records_total", sum(stored))
            self._metrics.count("headrace_kinesis_retries_total", len(stored) - sum(stored), reason="refused")
        return stored


def _heads(queues: Queues) -> list[Entry]:
    """The next record of each device, as many as one request takes."""
    heads: list[Entry] = []
    size = 0
    for queue in queues.values():
        size += queue[0].size
        if len(heads) == MAX_RECORDS or size > MAX_BYTES:
            break
        heads.append(queue[0])
    return heads
