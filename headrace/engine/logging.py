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
    "amqtt",
    "gmqtt",
    "asyncio",
    "transitions",
    "headrace.engine.runtime",
    "headrace.engine.app",
)


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
