"""Ingest of the priority lane: copies of alarms to readings, without waiting for what they have overtaken."""

from collections.abc import Mapping, Sequence

from headrace.agents.decode import Reasons
from headrace.agents.enrich import Entry
from headrace.agents.ingest import Ingest, IngestConfig
from headrace.agents.ingest_outputs import appended_types, in_order, readings_of, send_rows
from headrace.engine.batch import Batch
from headrace.engine.operator import State
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.tables.replicated import Replicated


class IngestPriority:
    """Turns `telemetry.raw.priority` into `telemetry.readings.priority`, in log order.

    Reads a message as `Ingest` does, and passes on what is right. Everything else is for the ordinary copy of the
    message: repeats and conflicts are not looked for, nothing is dead-lettered for its content, nothing is counted.

    Args: as for `Ingest`.
    """

    name = "ingest-priority"
    topic = topics.RAW_PRIORITY
    tables: Sequence[State] = ()

    def __init__(
        self,
        device_types: Mapping[str, DeviceType],
        config: IngestConfig | None = None,
        devices: Replicated[Entry] | None = None,
    ) -> None:
        self._ingest = Ingest(device_types, config, devices)  # with metrics that nobody sees: the other one counts
        self.replicas: Sequence[Replica] = self._ingest.replicas

    def process(self, batch: Batch) -> None:
        """See `headrace.engine.operator.Operator`."""
        reasons: Reasons = {}
        groups = self._ingest.read(batch, reasons)
        rows, values = in_order([readings_of(group) for group in groups])
        send_rows(batch, topics.READINGS_PRIORITY, rows, values, appended_types(groups))
