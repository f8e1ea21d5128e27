"""Commits of a process on their way to Kafka: queued, joined where they may be, carried out one after another."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import LogError
from headrace.engine.kafka.loop_thread import LoopThread
from headrace.engine.kafka.tallies import PARTITION as TALLIES
from headrace.engine.kafka.tallies import Tallies
from headrace.engine.kafka.transactions import Transactions
from headrace.engine.log import TopicPartition, Transaction
from headrace.engine.records import Records

#: Records of waiting commits that one Kafka transaction takes, about.
MOST_JOINED = 50_000
#: Seconds that a running commit gets when the log is closed.
CLOSE_TIMEOUT = 2.0


@dataclass(slots=True)
class _Waiting:
    transaction: Transaction
    done: asyncio.Future[Mapping[TopicPartition, int]]


class CommitQueue:
    """Carries out commits in the order of asking.

    Those without positions are joined while another is under way, so that many small appends share a transaction. One
    with positions stands alone: if it is refused, nobody else's records go with it. Cancelling a caller does not cancel
    its commit.
    """

    def __init__(self, thread: LoopThread, transactions: Transactions, clock: Clock) -> None:
        self._thread = thread
        self._transactions = transactions
        self._clock = clock
        self._tallies = Tallies()
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._failure: LogError | None = None

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """Carry out; returns by partition the offset of the last record."""
        if self._failure is not None:
            raise self._failure
        done: asyncio.Future[Mapping[TopicPartition, int]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(transaction, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(done)

    async def prepare(self) -> None:
        """End what a process of the same name left open, soon and not with the first commit."""
        await self._thread.run(self._transactions.prepare())

    async def claim(self) -> None:
        """Register at once, and claim the name if the transactions are of one; then wait for what was asked before.

        Raises:
            LogInUse: it is somebody else's.
        """
        if self._failure is None:
            await self._thread.run(self._transactions.ready())
        await self.commit(Transaction())

    async def close(self) -> None:
        """Finish what is asked for, if Kafka takes it soon; who still waits then gets a LogError."""
        if self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker], timeout=CLOSE_TIMEOUT)
            await cancel_and_wait(self._worker)
        self._failure = self._failure or LogError("the log is closed")
        await self._thread.run(self._transactions.close())

    async def _work(self) -> None:
        while self._waiting:
            group = self._next()
            try:
                lasts = await self._carry_out([each.transaction for each in group])
            except asyncio.CancelledError:
                self._fail(group, LogError("the log was closed before this was written"))
                raise
            except LogError as error:
                self._fail(group, error)
            except Exception as error:
                self._finish(group, error)
            else:
                self._finish(group, lasts)

    def _next(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        total = _size(group[0].transaction)
        while (
            self._waiting
            and not group[0].transaction.positions
            and not self._waiting[0].transaction.positions
            and total < MOST_JOINED
        ):
            group.append(self._waiting.popleft())
            total += _size(group[-1].transaction)
        return group

    async def _carry_out(self, transactions: list[Transaction]) -> Mapping[TopicPartition, int]:
        records = _by_partition(transactions, self._clock.now_ms())
        totals = self._tallies.added(append for each in transactions for append in each.appends)
        if totals:
            records[TALLIES] = self._tallies.records(totals, self._clock.now_ms())
        lasts: Mapping[TopicPartition, int] = {}
        if records or transactions[0].positions:
            lasts = await self._thread.run(self._transactions.carry_out(transactions[0], records))
        self._tallies.keep(totals)
        return lasts

    def _fail(self, group: list[_Waiting], error: LogError) -> None:
        """The log takes nothing more: neither these nor those behind them."""
        self._failure = error
        self._finish([*group, *self._waiting], error)
        self._waiting.clear()

    @staticmethod
    def _finish(group: list[_Waiting], outcome: Mapping[TopicPartition, int] | Exception) -> None:
        for each in group:
            if each.done.done():
                continue
            if not isinstance(outcome, Exception):
                each.done.set_result(outcome)
            else:
                each.done.set_exception(outcome)
                each.done.exception()  # a caller that was cancelled meanwhile does not take it


def _size(transaction: Transaction) -> int:
    return sum(len(append.records) for append in transaction.appends)


def _by_partition(transactions: Iterable[Transaction], now_ms: int) -> dict[TopicPartition, Records]:
    parts: dict[TopicPartition, list[Records]] = {}
    for transaction in transactions:
        for append in transaction.appends:
            if len(append.records):
                parts.setdefault(append.target, []).append(append.records)
        for change in transaction.changes:
            if change.entries:
                stamp = now_ms if change.time_ms is None else change.time_ms
                parts.setdefault(change.target, []).append(_change_records(change.entries, stamp))
    return {target: Records.concat(records) for target, records in parts.items()}


def _change_records(entries: Mapping[bytes, bytes | None], time_ms: int) -> Records:
    return Records(list(entries), list(entries.values()), [time_ms] * len(entries))
