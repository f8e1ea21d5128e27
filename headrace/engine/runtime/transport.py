"""Faust's transport interface, over whatever `Log` the app has."""

from typing import Any

from faust.transport.base import Transport

from headrace.engine.runtime.conductor import BatchConductor
from headrace.engine.runtime.consumer import BatchConsumer
from headrace.engine.runtime.producer import LogProducer


class LogTransport(Transport):
    """Consumer, producer and conductor that move batches; the app's `log` holds the records."""

    Consumer = BatchConsumer
    Producer = LogProducer
    Conductor = BatchConductor
    default_port = 0
    driver_version = "headrace"

    def create_transaction_manager(self, *args: Any, **kwargs: Any) -> Any:
        """Faust's transactions are not used: a commit is one step of the log itself."""
        return None
