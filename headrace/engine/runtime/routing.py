"""Which worker answers for a key, for `@app.table_route` and `@app.topic_route`."""

from typing import Any

from faust.app.router import Router
from faust.exceptions import SameNode
from faust.types.tuples import TP
from faust.web.exceptions import ServiceUnavailable


class LocalRouter(Router):
    """A worker answers for the partitions that it has; for others it says that another one does.

    Workers do not know each other's addresses.
    """

    async def route_req(self, table_name: str, key: Any, web: Any, request: Any) -> Any:
        table: Any = self._get_table(table_name)
        # A key may be kept in another form than the records have that it came from: look before computing.
        self._answer_if(key in table.data)
        partition = self._partition(self._get_table_topic(table), self._get_serialized_key(table, key))
        here = any(tp.partition == partition for tp in self._assigned() if self._feeds_table(tp, table))
        self._answer_if(here, otherwise=True)

    async def route_topic_req(self, topic: Any, key: Any, web: Any, request: Any) -> Any:
        name = topic.get_topic_name()
        partition = self._partition(name, topic.prepare_key(key, None)[0])
        self._answer_if(TP(name, partition) in self._assigned(), otherwise=True)

    def _partition(self, topic: str, key: bytes | None) -> int:
        return int(self.app.producer.key_partition(topic, key or b"").partition)

    def _assigned(self) -> set[TP]:
        return set(self.app.consumer.assignment())

    def _feeds_table(self, tp: TP, table: Any) -> bool:
        partitions = self.app.consumer.topic_partitions
        return partitions(tp.topic) == partitions(table.changelog_topic_name)

    @staticmethod
    def _answer_if(here: bool, otherwise: bool = False) -> None:
        if here:
            raise SameNode()
        if otherwise:
            raise ServiceUnavailable("another worker has the partition of this key; ask it")
