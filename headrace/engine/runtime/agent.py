"""Faust's agent, with its function looping over batches instead of events."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
from faust.agents.actor import AwaitableActor
from faust.types import StreamT
from faust.types.agents import ActorRefT
from faust.types.tuples import TP
from mode.utils.types.trees import NodeT

from headrace.engine.errors import ConfigError
from headrace.engine.log import TopicPartition
from headrace.engine.operator import Joint
from headrace.engine.runtime.batches import Batches
from headrace.engine.runtime.delivery import Delivery
from headrace.engine.runtime.event_agent import EventAgent

#: An agent's function: loops over batches until cancelled.
BatchFunction = Callable[[Batches], Awaitable[None]]
#: That, or one of Faust's: loops over the events of a stream, with or without `yield`.
AgentFunction = Callable[[Any], Any]


class BatchTopic(faust.Topic):
    """A topic that is read in batches; made by `App.batches`."""


class BatchAgent(EventAgent):
    """A Faust agent. On a `BatchTopic` its function gets `Batch` objects, on anything else events.

    Faust's supervisor restarts a crashed actor up to 5 s later and drops the event it had. Here the actor task itself
    catches what the function raises and offers the batch again (`Batches`), so the supervisor never sees it.

    On batches the function runs once per partition: one that waits, or is offered a batch again, holds up no other
    partition (see `test_slow_agent_holds_back_only_its_own_partition`). What it keeps in its variables is of one
    partition, and gone with the process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What its function runs, if it was made by `App.add`.
        self.operator: object = None
        self._batches: dict[TopicPartition, Batches] = {}
        self._partitions: asyncio.TaskGroup | None = None

    def deliver(self, delivery: Delivery) -> None:
        """Queue a delivery for the function of its partition."""
        target = delivery.fetched.target
        batches = self._batches.get(target)
        if batches is None:
            app = cast(Any, self.app)
            joint = isinstance(self.operator, Joint)
            batches = self._batches[target] = Batches(self.name, app.clock, app.metrics, app.lanes, joint=joint)
            if self._partitions is not None:
                self._partitions.create_task(self._run_partition(batches))
        batches.put(delivery)

    @property
    def on_batches(self) -> bool:
        """Whether the function loops over batches."""
        return isinstance(self.channel, BatchTopic)

    @property
    def began(self) -> bool:
        return self.on_batches or super().began

    def actor_from_stream(
        self,
        stream: StreamT[Any] | None,
        *,
        index: int | None = None,
        active_partitions: set[TP] | None = None,
        channel: Any = None,
    ) -> ActorRefT:
        if not self.on_batches:
            return super().actor_from_stream(stream, index=index, active_partitions=active_partitions, channel=channel)
        if self.concurrency != 1:
            raise ConfigError(f"agent {self.name}: concurrency is the number of partitions here; leave it out")
        actual = stream or self.stream(channel=channel, concurrency_index=index, active_partitions=active_partitions)
        actor = AwaitableActor(
            self,
            actual,
            self._run(),
            index=index,
            active_partitions=active_partitions,
            loop=self.loop,
            beacon=self.beacon,
        )
        return cast(ActorRefT, actor)

    async def _prepare_actor(self, aref: ActorRefT, beacon: NodeT[Any]) -> ActorRefT:
        if not self.on_batches:
            return await super()._prepare_actor(aref, beacon)
        return await faust.Agent._prepare_actor(self, aref, beacon)

    async def _run(self) -> None:
        if inspect.isasyncgenfunction(self.fun):
            raise ConfigError(f"agent {self.name} must be an `async def` without `yield`; use batch.send")
        async with asyncio.TaskGroup() as self._partitions:
            for batches in self._batches.values():
                self._partitions.create_task(self._run_partition(batches))
            await asyncio.Event().wait()

    async def _run_partition(self, batches: Batches) -> None:
        function = cast(BatchFunction, self.fun)
        while True:
            try:
                await function(batches)
            except Exception as error:
                try:
                    await batches.failed(error)
                except Exception as fatal:
                    # Not about a batch: a supervisor's restart would run on with tables in an unknown state.
                    await self.app.crash(fatal)
                    return
            else:
                await self.app.crash(
                    ConfigError(f"agent {self.name} returned; it must loop over its batches until cancelled")
                )
                return
