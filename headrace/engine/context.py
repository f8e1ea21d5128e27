"""The batch that the running agent task has in hand, so that Faust's own `topic.send` can be staged with it."""

from contextvars import ContextVar

from headrace.engine.batch import Batch

current_batch: ContextVar[Batch | None] = ContextVar("headrace_batch", default=None)
