"""How agents read and commit; the same for every transport."""

from pydantic import BaseModel, ConfigDict, Field


class RuntimeSettings(BaseModel):
    """Batching and commit of one worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_records: int = Field(
        5_000, ge=1, le=100_000, description="about how many records one batch holds at most"
    )
    linger_records: int = Field(500, ge=0, description="with fewer records than this, wait `linger` for more")
    linger: float = Field(0.02, ge=0, le=5, description="seconds to wait for more records")
    commit_interval: float = Field(0.05, ge=0, le=60, description="seconds from the first finished batch to its commit")
    poll_timeout: float = Field(0.5, gt=0, le=60, description="seconds an idle partition waits before it looks around")
    collect_after: int = Field(
        50_000,
        ge=700,
        le=10_000_000,
        description="objects made and not freed before Python's cyclic garbage collector runs; its own default is 700",
    )
    drain_timeout: float = Field(
        3.0, gt=0, le=300, description="seconds that running batches get when the worker stops"
    )
    standbys: int = Field(
        0, ge=0, le=10, description="other workers that keep copies of each partition's tables in memory, on Kafka"
    )
