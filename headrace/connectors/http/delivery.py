"""The way of messages into the log, and of verdicts back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from headrace.connectors.http.appender import Appender, Parcel
from headrace.connectors.http.prefer import Wish
from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.room import Share
from headrace.connectors.http.verdicts import Verdict, Verdicts
from headrace.engine.clock import Clock
from headrace.engine.errors import HeadraceError
from headrace.engine.intake import MessageIds


class Delivery:
    """Appends, and waits for verdicts where somebody wants them.

    Args:
        appender: into the log.
        verdicts: what ingest says.
        clock: for message ids.
        timeout: seconds for the log to take something.
    """

    def __init__(self, appender: Appender, verdicts: Verdicts, clock: Clock, timeout: float) -> None:
        self._appender = appender
        self._verdicts = verdicts
        self._timeout = timeout
        self._ids = MessageIds(clock)

    def message_ids(self, count: int) -> list[bytes]:
        """New ones."""
        return self._ids.take(count)

    async def deliver(
        self, parcel: Parcel, share: Share, wanted: Wish, *, patient: bool = False
    ) -> Sequence[Verdict | None]:
        """Append; what ingest says of each message as long as is wanted after that, None where it said nothing yet.

        Payloads are let go of before that, and whoever calls should keep none: waiting for ingest holds up nobody.
        Where too many wait already it is not waited for.

        Args:
            share: what the request holds.
            patient: wait for the log for as long as it takes.
        Raises:
            HttpProblem: nobody knows whether it is in the log.
        """
        message_ids, device_ids = parcel.message_ids, parcel.device_ids
        if wanted.seconds <= 0 or not message_ids:
            async with self._limit(patient):
                await self._appender.append(parcel)
            return [None] * len(message_ids)
        with self._verdicts.watch(message_ids, device_ids) as watch:
            async with self._limit(patient):
                await self._verdicts.begin()
                await self._appender.append(parcel)
            parcel.let_go()
            if share.watch(len(message_ids)):
                await self._verdicts.wait(watch, wanted.seconds, is_asked=wanted.is_asked)
            return [watch.found.get(each) for each in message_ids]

    @asynccontextmanager
    async def _limit(self, patient: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None if patient else self._timeout):
                yield
        except HeadraceError:
            said = "the log takes nothing; send it again later"
            raise HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", said) from None
        except TimeoutError:
            said = f"the log took longer than {self._timeout:g} s; send it again: what is there twice counts once"
            raise HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", said) from None
