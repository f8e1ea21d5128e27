"""Commands to devices: into the log, and from there to those who listen."""

from collections.abc import Callable, Sequence

from headrace.engine.clock import Clock
from headrace.engine.intake import MessageIds
from headrace.engine.log import Append, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.log_range import reading
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Header, Records
from headrace.schemas import topics

#: Seconds that a wait for commands lasts before it looks around.
POLL = 1.0
MAX_READ = 500


class Commands:
    """The topic `devices.commands`. Whoever appends to it, in any process, reaches the devices that are connected.

    Args:
        log: where they are.
        clock: gives append times.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._partitioner = Partitioner(log.partitions(topics.COMMANDS))
        self._message_ids = MessageIds(clock)

    async def append(self, commands: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Append commands: device, MQTT topic and payload of each; when this returns they are in the log for good.

        Raises:
            LogError: nothing was appended.
        """
        keys = [device.encode() for device, _, _ in commands]
        ids, now_ms = self._message_ids.take(len(commands)), self._clock.now_ms()
        appends = []
        for partition, rows in self._partitioner.split(keys).items():
            headers: dict[str, Header] = {
                topics.MESSAGE_ID: [ids[row] for row in rows],
                topics.SOURCE: [commands[row][1] for row in rows],
            }
            records = Records(
                [keys[row] for row in rows], [commands[row][2] for row in rows], [now_ms] * len(rows), headers
            )
            appends.append(Append(TopicPartition(topics.COMMANDS, partition), records))
        await self._log.commit(Transaction(appends))

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the commands that come from now on will begin."""
        return await self._log.end_offsets(topics.COMMANDS)

    async def follow(self, positions: dict[TopicPartition, int], deliver: Callable[[bytes, bytes], None]) -> None:
        """Hand over topic and payload of each command from `positions` on, for ever."""
        async with reading(self._log) as reader:
            while True:
                if not await reader.wait(positions, POLL):
                    continue
                for target in list(positions):
                    fetched = await reader.read(target, positions[target], MAX_READ)
                    if fetched is None:
                        continue
                    positions[target] = fetched.next_offset
                    sources = fetched.records.header(topics.SOURCE)
                    for source, payload in zip(sources, fetched.records.values, strict=True):
                        if source and payload is not None:
                            deliver(source, payload)

    @staticmethod
    def topic_specs(partitions: int) -> list[TopicSpec]:
        """The topic it needs."""
        return [TopicSpec(topics.COMMANDS, partitions)]
