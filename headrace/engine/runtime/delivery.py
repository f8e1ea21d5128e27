"""One fetch on its way through every agent that reads its topic: the commit unit."""

import asyncio
from collections.abc import Sequence

from headrace.engine.batch import Send, Shared
from headrace.engine.log import Fetched


class Delivery:
    """A fetch given to `agents` agents. Finished when each of them is done with all of it.

    What they sent is collected in the order in which they are registered: outputs do not depend on who was faster.
    """

    def __init__(self, fetched: Fetched, agents: Sequence[str]) -> None:
        self.fetched = fetched
        self.shared = Shared(fetched)
        self.dropped = False
        self._sends: dict[str, list[Send]] = {agent: [] for agent in agents}
        self._working = set(agents)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not agents:
            self._done.set_result(None)

    def finished(self, agent: str, sends: list[Send]) -> None:
        """`agent` is done with every record; `sends` is what it staged."""
        self._sends[agent] = sends
        self._working.discard(agent)
        if not self._working and not self._done.done():
            self._done.set_result(None)

    def stopped(self, error: Exception) -> None:
        """An agent gives up on this fetch."""
        if not self._done.done():
            self._done.set_exception(error)

    def drop(self) -> None:
        """The partition goes to another worker, or is restored: whatever agents still do with it has no effect."""
        self.dropped = True

    async def wait_finished(self) -> list[Send]:
        """Everything the agents sent.

        Raises:
            AgentStopped: one of them gave up; nothing of this fetch may be committed.
        """
        await self._done
        return [send for sends in self._sends.values() for send in sends]
