"""A Kinesis for the session, and a stream for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.connectors.kinesis.aws import Moto, Stream, client


@pytest.fixture(scope="session")
def kinesis_url() -> Iterator[str]:
    """Where it listens."""
    with Moto() as url:
        yield url


@pytest.fixture
async def stream(kinesis_url: str) -> AsyncIterator[Stream]:
    """An empty stream of two shards, named `fleet`."""
    async with client(kinesis_url) as kinesis:
        fleet = Stream(kinesis, "fleet")
        await fleet.make()
        yield fleet
