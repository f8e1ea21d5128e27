"""The right of one process to commit under a name, see `Log.claim`: who claims it last has it."""

import os
import socket

import orjson

from headrace.engine.clock import Clock
from headrace.engine.errors import LogInUse
from headrace.engine.kafka.encoding import encode
from headrace.engine.kafka.producer import Producer, Scope
from headrace.engine.kafka.restore import CompactedView
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.engine.records import Records

TOPIC = TopicSpec("headrace.claims", 1, compacted=True)
PARTITION = TopicPartition(TOPIC.name, 0)


class Claim:
    """One process's claim of one name, on the I/O thread.

    A producer that registers fences whoever has the name. That alone does not say who is to go on: the cluster fences
    also who took too long, and the fenced one, who registers again, fences the new one. So a process writes once who it
    is, and looks after every later registration whether that still stands. Between such a look and the end of a
    transaction nobody else can have written a claim: he would have registered, and the transaction been refused.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._own = orjson.dumps({"process": self._process, "token": os.urandom(12).hex()})
        self._made = False
        self._lost: LogInUse | None = None

    def check(self) -> None:
        """Do not register again once the name is somebody else's: that would fence him.

        Raises:
            LogInUse: it is.
        """
        if self._lost is not None:
            raise self._lost

    async def settle(self, producer: Producer) -> None:
        """Make the claim, or look whether it still stands; to be called when `producer` has registered.

        Raises:
            LogInUse: somebody else has made it since.
            KafkaError: register again, then call this again.
        """
        if self._made:
            entries = await CompactedView(producer.client, PARTITION, self._clock).update()
            found = entries.get(self._name.encode(), self._own)
            if found != self._own:
                self._lost = LogInUse(
                    f"{self._name}: {orjson.loads(found)['process']} has taken this over; {self._process} stops here, "
                    "as two would append everything twice. See to it that only one of them is started"
                )
                raise self._lost
            return
        record = Records([self._name.encode()], [self._own], [self._clock.now_ms()])
        scope = Scope(frozenset([PARTITION]))
        await producer.begin(scope)
        await producer.write({PARTITION: encode(record, "none")})
        await producer.end(scope)
        self._made = True
