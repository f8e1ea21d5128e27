"""Puts what many requests bring into the log: everything that waits goes into one commit."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import Disconnected, HeadraceError, LogError, RetryLater
from headrace.engine.intake import DeviceEvent, Intake
from headrace.engine.log import Changes
from headrace.schemas.topics import SEQUENCE

log = structlog.get_logger(__name__)

#: Messages of one commit, unless one request alone has more.
MAX_MESSAGES = 20_000
#: Seconds before an append that the log could not take is tried again, if it does not say.
APPEND_PAUSE = 1.0


@dataclass(slots=True, eq=False)
class Parcel:
    """What one request brings.

    Args:
        device_ids, payloads, message_ids: one each per message.
        device_type, profile, source: of all of them.
        alarms: places of alarms.
        sequences: numbers of the messages, see `headrace.connectors.formats.sequence`; empty if none has one.
        events: what is no reading.
        changes: committed with them.
    """

    device_ids: Sequence[bytes]
    payloads: Sequence[bytes]
    message_ids: Sequence[bytes]
    device_type: str
    profile: str
    source: bytes
    alarms: Sequence[int] = ()
    sequences: Sequence[bytes | None] = ()
    events: Sequence[DeviceEvent] = ()
    changes: Sequence[Changes] = ()
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def let_go(self) -> None:
        """Keep nothing of the payloads: they are in the log."""
        self.payloads = self.events = ()


class Appender:
    """Appends parcels in the order in which they came, each whole in one commit; while one commit is on its way to the
    disk the next collects.

    Args:
        intake: where to.
        clock: for waiting.
    """

    def __init__(self, intake: Intake, clock: Clock) -> None:
        self._intake = intake
        self._clock = clock
        self._waiting: deque[Parcel] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._failed: HeadraceError | None = None
        #: Messages taken and appended so far, and commits.
        self.taken = self.appended = self.commits = 0

    async def append(self, parcel: Parcel) -> None:
        """Append; when this returns it is in the log for good. Cancelled, it comes there only if that has begun.

        Raises:
            LogError: it is not there, and nothing will be.
        """
        if self._failed is not None or self._closed:
            raise LogError("nothing more is taken") from self._failed
        self.taken += len(parcel.payloads)
        self._waiting.append(parcel)
        self._arrived.set()
        try:
            await asyncio.shield(parcel.done)
        except asyncio.CancelledError:
            # Nobody counts its bytes from now on: a log that is away for long must not collect what was given up.
            if parcel in self._waiting:
                self._waiting.remove(parcel)
                self.taken -= len(parcel.payloads)
            raise

    def close(self) -> None:
        """Take no more: `run` appends what waits and returns."""
        self._closed = True
        self._arrived.set()

    async def run(self) -> None:
        """Append until closed.

        Raises:
            LogError: an append failed; nothing of it or behind it was acknowledged.
        """
        try:
            while True:
                await self._arrived.wait()
                if self._waiting:
                    await self._append(self._take())
                elif self._closed:
                    return
                else:
                    self._arrived.clear()
        except HeadraceError as error:
            self._failed = error
            raise
        finally:
            self._closed = True
            for parcel in self._waiting:
                _fail(parcel)
            self._waiting.clear()

    def _take(self) -> list[Parcel]:
        taken = [self._waiting.popleft()]
        count = len(taken[0].payloads)
        while self._waiting and count + len(self._waiting[0].payloads) <= MAX_MESSAGES:
            taken.append(self._waiting.popleft())
            count += len(taken[-1].payloads)
        if not self._waiting and not self._closed:
            self._arrived.clear()
        return taken

    async def _append(self, parcels: Sequence[Parcel]) -> None:
        device_ids, payloads, more = _joined(parcels)
        try:
            while True:
                try:
                    await self._intake.append(device_ids, payloads, **more)
                    break
                except (RetryLater, Disconnected) as error:
                    log.warning("http_append_repeated", requests=len(parcels), reason=str(error))
                    await self._clock.sleep(error.after if isinstance(error, RetryLater) else APPEND_PAUSE)
        except BaseException:
            for parcel in parcels:
                _fail(parcel)
            raise
        self.commits += 1
        self.appended += sum(len(parcel.payloads) for parcel in parcels)
        for parcel in parcels:
            if not parcel.done.done():
                parcel.done.set_result(None)


def _fail(parcel: Parcel) -> None:
    if not parcel.done.done():
        parcel.done.set_exception(LogError("it is not in the log"))
        parcel.done.exception()  # whoever waited may be gone


def _joined(parcels: Sequence[Parcel]) -> tuple[Sequence[bytes], Sequence[bytes], dict[str, Any]]:
    """Arguments of `Intake.append` for all of them."""
    if len(parcels) == 1:
        parcel = parcels[0]
        more: dict[str, Any] = {
            "device_type": parcel.device_type,
            "profile": parcel.profile,
            "sources": parcel.source,
            "alarms": parcel.alarms,
            "headers": {SEQUENCE: list(parcel.sequences)} if parcel.sequences else None,
            "events": parcel.events,
            "message_ids": parcel.message_ids,
            "changes": parcel.changes,
        }
        return parcel.device_ids, parcel.payloads, more
    alarms: list[int] = []
    changes: dict[Any, dict[bytes, bytes | None]] = {}
    sequences: list[bytes | None] = []
    before = 0
    for parcel in parcels:
        sequences += parcel.sequences or [None] * len(parcel.payloads)
        alarms += [before + place for place in parcel.alarms]
        before += len(parcel.payloads)
        for each in parcel.changes:
            changes.setdefault(each.target, {}).update(each.entries)
    device_ids = [*chain.from_iterable(parcel.device_ids for parcel in parcels)]
    payloads = [*chain.from_iterable(parcel.payloads for parcel in parcels)]
    more = {
        "device_type": [name for each in parcels for name in (each.device_type,) * len(each.payloads)],
        "profile": [name for each in parcels for name in (each.profile,) * len(each.payloads)],
        "sources": [source for each in parcels for source in (each.source,) * len(each.payloads)],
        "alarms": alarms,
        "headers": {SEQUENCE: sequences} if any(sequences) else None,
        "events": [event for parcel in parcels for event in parcel.events],
        "message_ids": [*chain.from_iterable(parcel.message_ids for parcel in parcels)],
        "changes": [Changes(target, entries) for target, entries in changes.items()],
    }
    return device_ids, payloads, more
