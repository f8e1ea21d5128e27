"""What TimescaleDB is told about the tables; plain PostgreSQL has none of it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DAY = 86_400.0


class TimescaleSettings(BaseModel):
    """Chunks, columnstore, continuous aggregates and what leaves by age. `headrace database policies` applies them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    chunk_interval: float = Field(
        DAY, ge=3600, le=365 * DAY, description="seconds of event time per chunk of a readings table; new chunks only"
    )
    rollup_chunk_interval: float = Field(
        7 * DAY, ge=3600, le=365 * DAY, description="likewise of rollups and anomalies"
    )
    columnstore: bool = Field(True, description="whether old chunks of readings and rollups become columns")
    columnstore_after: float = Field(
        7 * DAY,
        ge=3600,
        description="seconds of event time after which a chunk does; later than anything still arrives",
    )
    lateness: float = Field(
        3 * DAY, gt=0, description="seconds that devices may be late and still find chunks of rows: a backlog upload"
    )
    aggregates: bool = Field(True, description="continuous aggregates of 15 minutes, an hour and a day per device type")
    refresh_every: float = Field(900.0, ge=60, le=DAY, description="seconds between refreshes of the aggregates")
    refresh_window: float = Field(
        30 * DAY, ge=2 * DAY, description="seconds of event time that a refresh looks back; less than readings are kept"
    )
    aggregate_retention: float | None = Field(
        None, gt=0, description="seconds of event time that aggregates are kept; for ever if left out"
    )
    rollup_retention: float | None = Field(
        None, gt=0, description="seconds of event time that rollups are kept; for ever if left out"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.columnstore_after <= self.lateness:
            raise ValueError(
                f"columnstore_after ({self.columnstore_after:g} s) must be more than lateness ({self.lateness:g} s)"
            )
        if self.aggregate_retention is not None and self.aggregate_retention <= self.refresh_window:
            raise ValueError("aggregate_retention must be more than refresh_window, or refreshes bring back what left")
        return self

    def too_late(self, **horizons: float) -> list[str]:
        """Mistakes where readings or rollups still change after their chunk became columns.

        Args:
            horizons: by setting, with `__` for the dot, seconds for which it lets them change.

        >>> TimescaleSettings().too_late(rollup__grace=300.0, ingest__dedup_horizon=700_000.0)
        ['timescale.columnstore_after (604800 s) must be more than ingest.dedup_horizon (700000 s)']
        """
        return [
            f"timescale.columnstore_after ({self.columnstore_after:.12g} s) must be more than "
            f"{name.replace('__', '.')} ({seconds:.12g} s)"
            for name, seconds in horizons.items()
            if self.columnstore and seconds >= self.columnstore_after
        ]
