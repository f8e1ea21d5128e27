"""Batches of several partitions that an operator gets at once, because there are many and each is small."""

import asyncio
from collections import deque
from dataclasses import dataclass

from headrace.engine.batch import Batch
from headrace.engine.clock import Clock
from headrace.engine.log import TopicPartition
from headrace.engine.operator import Joint
from headrace.engine.runtime.lanes import Lanes

#: Times as many records as an agent gets of one partition that it gets of several: that takes little longer than one
#: batch, or it would not want them together.
GROUP = 4


class TogetherFailed(Exception):
    """An operator raised on several batches, and nobody knows on which: each is to be offered alone."""


@dataclass(slots=True, eq=False)
class _Offer:
    """A batch, and what became of it."""

    batch: Batch
    done: bool = False
    error: Exception | None = None


class Together:
    """Collects what partitions have ready while others work, and gives it to the operator.

    No more at once than `GROUP` × `Lanes.most` records, or one batch: the priority lane waits for that long.
    """

    def __init__(self, operator: Joint, lanes: Lanes, clock: Clock) -> None:
        self._operator = operator
        self._lanes = lanes
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting: deque[_Offer] = deque()

    async def process(self, batch: Batch) -> None:
        """Returns when the operator is done with the batch.

        Raises:
            TogetherFailed: it raised.
        """
        offer = _Offer(batch)
        self._waiting.append(offer)
        try:
            async with self._turn:
                if not offer.done:
                    await self._clock.sleep(0)  # whoever is ready in this pass of the loop comes along
                    await self._lanes.wait_turn(TopicPartition(batch.topic, batch.partition))
                    self._process_first()
        except asyncio.CancelledError:  # the partition was taken away
            if not offer.done:
                self._waiting.remove(offer)
            raise
        if offer.error is not None:
            raise TogetherFailed(repr(offer.error)) from offer.error

    def _process_first(self) -> None:
        group = [self._waiting.popleft()]
        count = len(group[0].batch)
        while self._waiting and count + len(self._waiting[0].batch) <= GROUP * self._lanes.most:
            group.append(self._waiting.popleft())
            count += len(group[-1].batch)
        error = None
        try:
            self._operator.process_together([offer.batch for offer in group])
        except Exception as raised:
            error = raised
        for offer in group:
            offer.done, offer.error = True, error
