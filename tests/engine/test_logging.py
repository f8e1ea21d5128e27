"""Logging: what a library repeats while a server is away."""

import io
import json
import logging as stdlib
from collections.abc import Iterator

import pytest
import structlog

from headrace.engine import logging


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What is logged, as JSON lines; logging is put back afterwards."""
    root = stdlib.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logging.configure("info", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def events(output: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in output.getvalue().splitlines()]


def test_repeated_messages_about_kafka_are_said_once(output: io.StringIO) -> None:
    """Of the library and of ours; another message in between is said."""
    library, ours = stdlib.getLogger("aiokafka"), structlog.get_logger("headrace.engine.kafka.fetcher")
    for _ in range(3):
        library.error("Unable connect to node with id %s", 0)
        ours.warning("fetch_failed", node=0)
    library.error("Unable connect to node with id %s", 1)

    assert events(output) == [
        "Unable connect to node with id 0",
        "fetch_failed",
        "Unable connect to node with id 1",
    ]


def test_others_may_repeat_themselves(output: io.StringIO) -> None:
    """Nothing else is held back."""
    for _ in range(3):
        structlog.get_logger("headrace.engine.sink_runner").warning("sink_waits")

    assert events(output) == ["sink_waits"] * 3
