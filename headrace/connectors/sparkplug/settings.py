"""How Sparkplug B is taken."""

from pydantic import BaseModel, ConfigDict, Field


class SparkplugSettings(BaseModel):
    """For all edge nodes. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host_id: str | None = Field(
        None,
        pattern=r"^[^/+#\x00]+$",
        max_length=256,
        description="publish `spBv1.0/STATE/HOST_ID` to the broker of [mqtt], for edge nodes that wait for a primary "
        "host; nothing if left out",
    )
    reorder_timeout: float = Field(
        2.0, ge=0, le=300, description="seconds that a message waits for those before it, which may have been overtaken"
    )
    hold: float = Field(
        60.0, ge=1, le=86_400, description="seconds that data waits for the birth certificate that explains it"
    )
    max_held: int = Field(1_000, ge=1, le=100_000, description="messages of an edge node that may wait for either")
    max_held_bytes: int = Field(1 << 20, ge=1 << 10, le=1 << 30, description="bytes of these, per edge node")
    rebirth: bool = Field(True, description="whether edge nodes are asked for their births where messages are missing")
    rebirth_interval: float = Field(
        10.0, ge=0.1, le=86_400, description="seconds between two such requests to an edge node, at least"
    )
    max_edges: int = Field(10_000, ge=1, le=1_000_000, description="edge nodes; the messages of more are dead-lettered")
