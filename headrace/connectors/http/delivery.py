"""The way of messages into the log, and of verdicts back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from headrace.connectors.http.appender import Appender, Parcel
from headrace.connectors.http.body import Share
from headrace.connectors.http.problem import HttpProblem
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
        self, parcel: Parcel, share: Share, seconds: float, *, patient: bool = False
    ) -> Sequence[Verdict | None]:
        """Append; what ingest says of each message within `seconds` after that, None where it said nothing yet.

        Args:
            share: what the request holds; while it waits for ingest others may come.
            patient: wait for the log for as long as it takes.
        Raises:
            HttpProblem: nobody knows whether it is in the log.
        """
        if seconds <= 0:
            async with self._limit(patient):
                await self._appender.append(parcel)
            return [None] * len(parcel.payloads)
        with self._verdicts.watch(parcel.message_ids, parcel.device_ids) as watch:
            async with self._limit(patient):
                await self._verdicts.begin()
                await self._appender.append(parcel)
            share.leave_place()
            await self._verdicts.wait(watch, seconds)
            return [watch.found.get(each) for each in parcel.message_ids]

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
