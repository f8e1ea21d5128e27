"""All logging goes through structlog: readable on a terminal, JSON otherwise; Faust's own is routed through it too."""

import logging
import sys
from typing import TextIO

import structlog

#: Libraries that log what is normal for them; only their warnings are ours to show.
NOISY = (
    "faust",
    "mode",
    "aiokafka",
    "gmqtt",
    "asyncio",
    "transitions",
    "headrace.engine.runtime",
    "headrace.engine.app",
)


#: Loggers that say the same many times a second while a server is away, and seconds in which they may say it once.
REPETITIVE, ONCE_IN = ("aiokafka", "headrace.engine.kafka"), 10.0
#: Messages that are remembered.
MOST_REMEMBERED = 1_000


def configure(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    Args:
        level: least level shown: debug, info, warning or error.
        stream: where to; standard error if left out. A terminal gets coloured lines, anything else JSON.
    """
    target = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if target.isatty():
        last: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Repeats(logging.Filter):
    """Lets what is said over and over through once every `ONCE_IN` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(REPETITIVE):
            return True
        said = record.getMessage()
        if isinstance(record.msg, dict):
            said = repr({key: value for key, value in record.msg.items() if key != "timestamp"})
        if record.created - self._said.get(said, 0.0) < ONCE_IN:
            return False
        if len(self._said) >= MOST_REMEMBERED:
            self._said.clear()
        self._said[said] = record.created
        return True
