"""Whose turn it is on one channel: waiting rows in their order, pauses after failures, and what may be under way."""

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

from headrace.connectors.notifications.delivery_settings import DeliverySettings
from headrace.connectors.notifications.row import Row

#: Failures of a server in a row after which it counts as down: one message at a time asks whether it is back.
DOWN_AFTER = 5
#: Seconds between two of these at most, as long as there are messages that have not failed lately.
MAX_ASK = 30.0


@dataclass(slots=True)
class Server:
    """Where messages go: the server of the channel, or one of many.

    Args:
        ready: whose turn comes next.
        delayed: those that failed, by when they are due.
        under_way: count.
        failures: since something went well, count.
        ask_ms: not before this, while it is down.
    """

    ready: deque[Row] = field(default_factory=deque)
    delayed: list[tuple[int, int, Row]] = field(default_factory=list)
    under_way: int = 0
    failures: int = 0
    ask_ms: int = 0
    error: str = ""

    @property
    def down(self) -> bool:
        """Whether it has failed so often that it is only asked now and then."""
        return self.failures >= DOWN_AFTER


class ChannelQueue:
    """Rows of one channel; of those of one lane (alert and contact) one at a time, in the order in which they came.

    Waits double from failure to failure, each cut by up to half at random. A server that is down is asked with one row
    at a time; the others do not count as tried, and all go as soon as one gets through. Where a channel has many
    servers, none takes more than half of what may be under way.

    Args:
        at_once: rows under way, count.
        settings: of waits.
        random: cuts them.
    """

    def __init__(self, at_once: int, settings: DeliverySettings, random: Random) -> None:
        self._at_once = at_once
        self._settings = settings
        self._random = random
        self._servers: dict[str, Server] = {}
        #: Servers with rows, the next first.
        self._turns: deque[str] = deque()
        #: By lane, the rows behind the one whose turn it is.
        self._lanes: dict[tuple[str, str, str], deque[Row]] = {}
        #: Keys of rows whose place is free again already.
        self._gone: set[bytes] = set()
        self._number = 0
        self.under_way = 0
        self.waiting = 0

    def add(self, row: Row) -> None:
        """A row that has not been tried here yet."""
        self.waiting += 1
        behind = self._lanes.get(row.lane)
        if behind is not None:
            row.rest()
            behind.append(row)
            return
        self._lanes[row.lane] = deque()
        self._queue(row, row.due_ms)

    def behind(self, row: Row) -> list[Row]:
        """The rows of its lane that wait for it."""
        return list(self._lanes[row.lane])

    def next(self, now_ms: int) -> Row | None:
        """The row to try now; None if none may be."""
        if self.under_way >= self._at_once:
            return None
        for _ in range(len(self._turns)):
            name = self._turns[0]
            self._turns.rotate(-1)
            server = self._servers[name]
            row = self._take(name, server, now_ms)
            if row is not None:
                server.under_way += 1
                self.under_way += 1
                self.waiting -= 1
                return row
        return None

    def due_ms(self) -> int | None:
        """When a row may be tried that may not now, ms; None if only the end of another one brings that about."""
        if self.under_way >= self._at_once:
            return None
        dues = (self._due(name, server) for name, server in self._servers.items())
        return min((due for due in dues if due is not None), default=None)

    def take_hopeless(self, now_ms: int) -> list[Row]:
        """Rows that are too old, of servers that are down; they count as under way until they have `ended`."""
        found: list[Row] = []
        for server in self._servers.values():
            if not server.down:
                continue
            old = {id(row) for row in server.ready if self._is_old(row, now_ms)}
            old |= {id(row) for _, _, row in server.delayed if self._is_old(row, now_ms)}
            if old:
                found += [row for row in server.ready if id(row) in old]
                found += [row for _, _, row in server.delayed if id(row) in old]
                server.ready = deque(row for row in server.ready if id(row) not in old)
                server.delayed = [each for each in server.delayed if id(each[2]) not in old]
                heapq.heapify(server.delayed)
                server.under_way += len(old)
                self.under_way += len(old)
                self.waiting -= len(old)
        return found

    def _is_old(self, row: Row, now_ms: int) -> bool:
        settings = self._settings
        limit = settings.stale_after if row.stales else settings.give_up_after
        return row.status != "unknown" and now_ms - row.decided_at > limit * 1000

    def free(self, row: Row) -> None:
        """The server has taken it: another row may have its place. The next of its lane waits until it has `ended`."""
        self._gone.add(row.key)
        self._leave(row)

    def ended(self, row: Row) -> None:
        """What came of it is written, or the row was never given to the server: the next of its lane is ready."""
        if row.key in self._gone:
            self._gone.discard(row.key)
        else:
            self._leave(row)
        behind = self._lanes[row.lane]
        if behind:
            follower = behind.popleft()
            self._queue(follower, follower.due_ms)
        else:
            del self._lanes[row.lane]

    def answered(self, row: Row) -> bool:
        """Its server takes messages; whether that is news."""
        server = self._servers[row.server]
        was_down, server.failures, server.error = server.down, 0, ""
        if was_down:
            server.ready.extendleft(reversed([each for _, _, each in sorted(server.delayed)]))
            server.delayed.clear()
        return was_down

    def failed(self, row: Row, now_ms: int, error: str, after: float) -> bool:
        """It has not got through; it will be tried again, at `row.due_ms`. Whether its server is down now, and was not.

        Args:
            after: seconds that the server wants to have before it.
        """
        server = self._servers[row.server]
        server.failures += 1
        server.error = error
        row.due_ms = now_ms + round(1000 * max(after, self._backoff(row.attempts)))
        if server.down:
            wait = max(after, min(MAX_ASK, self._backoff(server.failures - DOWN_AFTER + 1)))
            server.ask_ms = now_ms + round(1000 * wait)
        self._leave(row)
        self.waiting += 1
        row.rest()
        self._queue(row, row.due_ms)
        return server.failures == DOWN_AFTER

    def down(self) -> dict[str, str]:
        """Servers that are down, with the last error of each."""
        return {name: server.error for name, server in self._servers.items() if server.down}

    def _leave(self, row: Row) -> None:
        self.under_way -= 1
        server = self._servers[row.server]
        server.under_way -= 1
        if not (server.under_way or server.ready or server.delayed or server.failures):
            del self._servers[row.server]
            self._turns.remove(row.server)

    def _queue(self, row: Row, due_ms: int) -> None:
        server = self._servers.get(row.server)
        if server is None:
            server = self._servers[row.server] = Server()
            self._turns.append(row.server)
        if due_ms:
            self._number += 1
            heapq.heappush(server.delayed, (due_ms, self._number, row))
        else:
            server.ready.append(row)

    def _take(self, name: str, server: Server, now_ms: int) -> Row | None:
        if self._is_full(name, server) or (server.down and now_ms < server.ask_ms):
            return None
        if server.delayed and server.delayed[0][0] <= now_ms:
            return heapq.heappop(server.delayed)[2]
        return server.ready.popleft() if server.ready else None

    def _is_full(self, name: str, server: Server) -> bool:
        most = 1 if server.down else self._at_once if not name else max(1, self._at_once // 2)
        return server.under_way >= most

    def _due(self, name: str, server: Server) -> int | None:
        if self._is_full(name, server):
            return None
        due = 0 if server.ready else server.delayed[0][0] if server.delayed else None
        return max(due, server.ask_ms) if due is not None and server.down else due

    def _backoff(self, tries: int) -> float:
        settings = self._settings
        longest = min(settings.max_backoff, settings.first_backoff * 2.0 ** min(max(tries - 1, 0), 30))
        return longest * (1 - self._random.random() / 2)
