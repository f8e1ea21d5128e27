"""Queries over what is stored record by record: states, conflicts, alerts, anomalies and the ledger."""

from collections.abc import Mapping, Sequence

from headrace.connectors.timescale import ledger_rows, records, states
from headrace.connectors.timescale.answers import LedgerAnswer, Listed, States
from headrace.connectors.timescale.query_pool import QueryPool
from headrace.engine.clock import Clock

#: Readings of a page of raw history, and devices of an answer.
PAGE = 10_000
#: Records of a list.
RECORDS = 100


class RecordQueries:
    """The part of `headrace.connectors.timescale.store.Store` that is about records."""

    def __init__(self, pool: QueryPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def state(
        self, device_ids: Sequence[str] | None = None, *, device_type: str | None = None, limit: int = PAGE
    ) -> States:
        """The newest reading of devices: chosen ones, those of a type, or all."""
        now = self._clock.now_ms()
        return await states.states(self._pool, device_ids, device_type, limit=limit, now_ms=now)

    async def conflicts(
        self,
        *,
        device_id: str | None = None,
        device_type: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = RECORDS,
        cursor: str | None = None,
    ) -> Listed:
        """Messages that contradicted what was accepted; see `headrace.schemas.conflict.Conflict`."""
        return await self._records(
            "conflicts", {"device_id": device_id, "device_type": device_type}, start_ms, end_ms, limit, cursor
        )

    async def alerts(
        self,
        *,
        device_id: str | None = None,
        rule_id: str | None = None,
        severity: str | None = None,
        status: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = RECORDS,
        cursor: str | None = None,
    ) -> Listed:
        """Alerts by when they were triggered; see `headrace.schemas.alert`."""
        chosen = {"device_id": device_id, "rule_id": rule_id, "severity": severity, "status": status}
        return await self._records("alerts", chosen, start_ms, end_ms, limit, cursor)

    async def anomalies(
        self,
        *,
        device_id: str | None = None,
        device_type: str | None = None,
        metric: str | None = None,
        detector: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = RECORDS,
        cursor: str | None = None,
    ) -> Listed:
        """Anomalies by event time; see `headrace.schemas.anomaly`."""
        chosen = {"device_id": device_id, "device_type": device_type, "metric": metric, "detector": detector}
        return await self._records("anomalies", chosen, start_ms, end_ms, limit, cursor)

    async def ledger(
        self,
        resolution: str | None = "1h",
        *,
        device_type: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> LedgerAnswer:
        """What the sink stored, and found to be duplicates or conflicts, by append time: per 1m, 1h, 1d, or in all."""
        now = self._clock.now_ms()
        return await ledger_rows.ledger_rows(
            self._pool, resolution, device_type, start_ms=start_ms, end_ms=end_ms, now_ms=now
        )

    async def _records(
        self,
        kind: records.Kind,
        chosen: Mapping[str, str | None],
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        cursor: str | None,
    ) -> Listed:
        now = self._clock.now_ms()
        return await records.records(
            self._pool, kind, chosen, start_ms=start_ms, end_ms=end_ms, limit=limit, cursor=cursor, now_ms=now
        )
