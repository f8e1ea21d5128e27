"""What history needs of an archive: the readings that are no longer in the database."""

from typing import Protocol

from headrace.schemas.readings import Readings


class HistoryArchive(Protocol):
    """Readings that were moved out of the database. Days that the database still has may be in it too."""

    async def read(self, device_type: str, device_id: str, start_ms: int, end_ms: int) -> Readings:
        """The archived readings of a device with start_ms <= event time < end_ms, by time, one per event time."""
        ...

    async def device_types(self) -> list[str]:
        """The device types of which something is archived."""
        ...
