"""Tells a topic from another one of the same name."""

from collections.abc import Iterable
from typing import Any

import aiokafka.errors as kafka_errors

from headrace.engine.kafka.client import Client, ask
from headrace.engine.kafka.protocol_metadata import NO_ID, TopicIdRequest


class TopicIds:
    """Remembers the ids of topics as they were when it was asked first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids: dict[str, bytes] = {}

    def known(self, topic: str) -> bool:
        return topic in self._ids

    async def changed(self, topics: Iterable[str]) -> set[str]:
        """Those of `topics` that are not the ones of before; what is not there now, or not known yet, is none of them.

        From then on the new ones count. Nothing is known while no broker answers.
        """
        changed = set()
        for _, name, new, *_ in await self._ask(topics):
            if new not in (NO_ID, self._ids.get(name, new)):
                changed.add(name)
            if new != NO_ID:
                self._ids[name] = new
        return changed

    async def _ask(self, topics: Iterable[str]) -> list[Any]:
        node = self._client.get_random_node()
        if node is None:
            return []
        try:
            response = await ask(self._client, node, TopicIdRequest(topics))
        except kafka_errors.KafkaError:
            return []
        return [topic for topic in response.topics if topic[0] == 0]
