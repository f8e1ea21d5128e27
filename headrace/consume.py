"""Reading what headrace writes, from programs of one's own: `async for event in read_alerts(url, group="pager")`."""

from headrace.connectors.alert_consumer import StateChange, Stream, read_alerts, read_states
from headrace.engine.errors import ConfigError, HeadraceError, LogError, LogInUse
from headrace.engine.kafka.settings import KafkaSettings
from headrace.schemas.alert import Alert, AlertEvent, Refusal

__all__ = [
    "Alert",
    "AlertEvent",
    "ConfigError",
    "HeadraceError",
    "KafkaSettings",
    "LogError",
    "LogInUse",
    "Refusal",
    "StateChange",
    "Stream",
    "read_alerts",
    "read_states",
]
