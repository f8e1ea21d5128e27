"""What runs things: the App, batches, the log, commits, sources and sinks, clock, errors."""

from headrace.engine.app import App
from headrace.engine.batch import Batch, Reading
from headrace.engine.clock import Clock, ManualClock, SystemClock, VirtualClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import (
    AgentStopped,
    BadRecord,
    ConfigError,
    CutBatch,
    Disconnected,
    HeadraceError,
    LogError,
    LogInUse,
    RetryLater,
)
from headrace.engine.intake import Intake, Mark, MessageIntake
from headrace.engine.ledger import Ledger
from headrace.engine.log import Append, Changes, Fetched, Log, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.memory_sink import MemorySink
from headrace.engine.operator import Operator, State
from headrace.engine.records import Record, Records
from headrace.engine.runtime.batches import Batches
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.engine.sink import Sink
from headrace.engine.sink_runner import SinkRunner

__all__ = [
    "AgentStopped",
    "App",
    "Append",
    "BadRecord",
    "Batch",
    "Batches",
    "Changes",
    "Clock",
    "ConfigError",
    "CutBatch",
    "Disconnected",
    "EmbeddedLog",
    "Fetched",
    "HeadraceError",
    "Intake",
    "Ledger",
    "Log",
    "LogError",
    "LogInUse",
    "ManualClock",
    "Mark",
    "MemorySink",
    "MessageIntake",
    "Operator",
    "Reading",
    "Record",
    "Records",
    "RetryLater",
    "RuntimeSettings",
    "Sink",
    "SinkRunner",
    "State",
    "SystemClock",
    "Tally",
    "TopicPartition",
    "TopicSpec",
    "Transaction",
    "VirtualClock",
]
