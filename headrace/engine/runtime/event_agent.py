"""Faust's agent, going event by event: an event that it raises on is offered again, not dropped."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from typing import Any, cast
from uuid import uuid4

import faust
from faust.agents.replies import ReplyPromise
from faust.exceptions import ImproperlyConfigured, PartitionsMismatch
from faust.types import StreamT
from faust.types.agents import ActorRefT
from mode.utils.types.trees import NodeT

from headrace.engine.errors import ConfigError, LogError
from headrace.engine.runtime.event_stream import EventStream

#: Errors that no second try repairs, and that are not about one event.
FATAL = (ConfigError, LogError, ImproperlyConfigured, PartitionsMismatch)


class EventAgent(faust.Agent):
    """A Faust agent, with a supervisor's work done in the actor's own task.

    Faust's supervisor starts a crashed actor up to 5 s later, without the event it had. Here the function is run anew,
    on the same stream, which offers that event again.
    """

    @property
    def began(self) -> bool:
        """Whether all actors have said what they read, by looping over it."""
        return all(self._has_begun(actor) for actor in self._actors)

    def _has_begun(self, actor: Any) -> bool:
        return bool(_active(actor.stream)._finalized or (actor.actor_task is not None and actor.actor_task.done()))

    async def on_start(self) -> None:
        if self.isolated_partitions:
            raise ConfigError(f"agent {self.name}: leave out isolated_partitions; events of a partition come in order")
        await super().on_start()

    async def _prepare_actor(self, aref: ActorRefT, beacon: NodeT[Any]) -> ActorRefT:
        if isinstance(aref, Awaitable) and self._sinks:
            cast(Any, aref).it.close()
            raise ImproperlyConfigured("Agent must yield to use sinks")
        task = self.loop.create_task(self._execute_actor(self._supervise(aref), aref))
        task._beacon = beacon  # type: ignore[attr-defined]
        aref.actor_task = task
        self._actors.add(aref)
        return aref

    async def _supervise(self, actor: Any) -> None:
        """Run the function until the stream ends; after an exception anew."""
        stream = cast(EventStream, actor.stream)
        stream.begin()
        try:
            while True:
                try:
                    if isinstance(actor, AsyncIterable):
                        await self._slurp(cast(Any, actor), aiter(actor))
                    else:
                        await actor
                except Exception as error:
                    if not await self._recover(actor, error):
                        return
                else:
                    if not _active(stream).ended:
                        message = f"agent {self.name} returned; it must loop over its stream until that ends"
                        await self.app.crash(ConfigError(message))
                    return
        finally:
            _active(stream).give_back()
            await stream.stop()
            stream.service_reset()

    async def _recover(self, actor: Any, error: Exception) -> bool:
        """See to the event that the function raised on, and make the function ready to run; False if the app ends."""
        stream = cast(EventStream, actor.stream)
        if isinstance(actor.it, AsyncGenerator):
            await actor.it.aclose()
        if self._on_error is not None:
            await self._on_error(self, error)
        if isinstance(error, FATAL) or not await _active(stream).failed(error):
            await self.app.crash(error)
            return False
        stream.begin_again()
        actor.it = cast(Any, self.fun)(stream)
        return True

    async def ask_nowait(
        self,
        value: Any = None,
        *,
        key: Any = None,
        reply_to: Any = None,
        correlation_id: str | None = None,
        force: bool = True,
        **options: Any,
    ) -> ReplyPromise:
        """Send a request; at once, even with an event in hand: the reply could not come before the event is done."""
        app = cast(Any, self.app)
        if reply_to is None:
            raise TypeError("Missing reply_to argument")
        reply_to = self._get_strtopic(reply_to)
        await app.maybe_start_client()
        promise = ReplyPromise(reply_to, correlation_id or str(uuid4()))
        await app._reply_consumer.add(promise.correlation_id, promise)
        headers = options.pop("headers", None)
        request, headers = self._create_req(key, value, reply_to, promise.correlation_id, headers)
        await self.channel.send(key=key, value=request, headers=headers, force=True, **options)
        return promise


def _active(stream: EventStream) -> EventStream:
    """The stream that the function loops over, after `group_by` and the like."""
    return cast(EventStream, cast(StreamT[Any], stream).get_active_stream())
