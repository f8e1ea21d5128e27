"""What HTTP ingest needs of others; `headrace.cli.bridge_http` brings it in."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Judge(Protocol):
    """Says before the append what ingest would refuse; `headrace.agents.payload_judge.PayloadJudge` is one."""

    def refusals(self, device_type: str, device_ids: Sequence[bytes], payloads: Sequence[bytes]) -> Mapping[int, str]:
        """Why a message would be refused, by its place; nothing about those that are right."""
        ...


class Newest(NamedTuple):
    """The newest value of a metric of a device; `time_ms` since 1970 UTC."""

    device_id: str
    metric: str
    value: float
    unit: str
    time_ms: int


class NewestValues(Protocol):
    """Knows the newest values; `headrace.connectors.http.stored_values.StoredValues` is one."""

    async def newest(self, device_id: str | None, limit: int) -> Sequence[Newest]:
        """Those of a device, or of all; the newest first.

        Raises:
            HttpProblem: they cannot be told.
        """
        ...
