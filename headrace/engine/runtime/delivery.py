"""One fetch on its way through every agent that reads its topic: the commit unit."""

import asyncio
from collections.abc import Callable, Sequence

from headrace.engine.batch import Idle, Send, Shared
from headrace.engine.log import Fetched


class Delivery:
    """A fetch given to `agents` agents. Finished when each of them is done with all of it.

    What they sent is collected in the order in which they are registered: outputs do not depend on who was faster.

    Args:
        fetched: what was read; nothing, if it is about time that passed.
        agents: their names.
        idle: the time that passed.
    """

    def __init__(self, fetched: Fetched, agents: Sequence[str], idle: Idle | None = None) -> None:
        self.fetched = fetched
        self.idle = idle
        self.shared = Shared(fetched)
        self._sends: dict[str, list[Send]] = {agent: [] for agent in agents}
        self._working = set(agents)
        self._finishers: list[Callable[[], None]] = []
        self._over = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not agents:
            self._done.set_result(None)

    @property
    def over(self) -> bool:
        """Whether it was dropped, or stopped by an agent: what is done with it now has no effect."""
        return self._over

    def on_finished(self, apply: Callable[[], None]) -> None:
        """Run `apply` when every agent is done, before anything of it is committed. It must not raise."""
        self._finishers.append(apply)

    def finished(self, agent: str, sends: list[Send]) -> None:
        """`agent` is done with every record; `sends` is what it staged."""
        self._sends[agent] = sends
        self._working.discard(agent)
        if not self._working and not self._done.done():
            for apply in self._finishers:
                apply()
            self._done.set_result(None)

    def stopped(self, error: Exception) -> None:
        """An agent gives up on this fetch."""
        self._over = True
        if not self._done.done():
            self._done.set_exception(error)

    def drop(self) -> None:
        """The partition is taken away: nothing of this fetch is committed. Whoever waits for it is cancelled."""
        self._over = True
        self._done.cancel()

    async def wait_finished(self) -> list[Send]:
        """Everything the agents sent.

        Raises:
            AgentStopped: one of them gave up; nothing of this fetch may be committed.
        """
        await self._done
        return [send for sends in self._sends.values() for send in sends]
