"""An empty log."""

from collections.abc import AsyncIterator

import pytest

from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Log, TopicSpec
from headrace.schemas import topics


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    """In memory, with `in`, `out` (one partition) and a topic for dead letters."""
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec(topics.DEAD_LETTERS, 1)])
    yield log
    await log.close()
