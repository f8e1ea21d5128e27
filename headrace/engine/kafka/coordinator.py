"""aiokafka's group coordinator, where it is too trusting."""

from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import HeartbeatRequest

from headrace.engine.errors import ConfigError
from headrace.engine.kafka.protocol_groups import InstanceHeartbeat

#: Error code of a member whose instance name another one has taken.
FENCED_INSTANCE_ID = 82


class Coordinator(GroupCoordinator):  # type: ignore[misc]
    """Learns when another worker has taken its instance name, and that a topic has got partitions.

    aiokafka's heartbeats carry no instance name: the group answers that the member is unknown, which then joins again
    and takes the name back, and so does the other one. And only the leader of a group watches its topics; a leader that
    starts again under its instance name is not told that it leads.
    """

    #: Why this worker can take no more part, or None.
    lost: ConfigError | None = None
    _group_subscription: set[str] | None

    async def _send_req(self, request: Any) -> Any:
        if isinstance(request, HeartbeatRequest) and self._group_instance_id is not None:
            request = InstanceHeartbeat(self.group_id, self.generation, self.member_id, self._group_instance_id)
        response = await super()._send_req(request)
        if getattr(response, "error_code", 0) == FENCED_INSTANCE_ID:
            self.lost = ConfigError(
                f"another worker has joined group {self.group_id} under the name {self._group_instance_id}, which this "
                "one has. Give the workers of each machine a name of their own: [kafka] instance"
            )
            raise self.lost
        return response

    async def _on_join_complete(self, *args: Any) -> None:
        if self._group_subscription is None:  # not the leader
            self._group_subscription = set(self._subscription.topics)
            self._metadata_snapshot = self._get_metadata_snapshot()
        await super()._on_join_complete(*args)
