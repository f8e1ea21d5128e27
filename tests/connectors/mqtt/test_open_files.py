"""The limit of open files is raised as far as the system lets us."""

import resource

import pytest
from structlog.testing import capture_logs

from headrace.connectors.mqtt.open_files import allow_open_files
from tests.connectors.mqtt.listening import Listening

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "found"),
    [
        (256, 4_096, 1_000, 1_000),
        (256, 4_096, 10_000, 4_096),
        (256, NONE, 10_000, 10_000),
        (NONE, NONE, 10_000, 10_000),
        (4_096, 4_096, 1_000, 4_096),
    ],
)
def test_as_far_as_it_goes(soft: int, hard: int, wanted: int, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to what is wanted, or to the system's own limit; never down."""
    now = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.append(limits))

    assert allow_open_files(wanted) == found
    assert now[-1][1] == hard
    assert now[-1][0] in (soft, found)


def test_a_system_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allowed before is the limit."""

    def refuse(_: int, limits: tuple[int, int]) -> None:
        raise ValueError(f"not allowed: {limits}")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, NONE))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert allow_open_files(1_000) == 256


async def test_a_listener_raises_it_and_says_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own limit goes up when it starts; a system's limit below `max_connections` is logged."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, limits[1]))
    try:
        with capture_logs() as logs:
            async with Listening(max_connections=100):
                assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not logs

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    with capture_logs() as logs:
        async with Listening(max_connections=1_000):
            pass
    assert logs[0]["event"] == "few_open_files"
    assert logs[0]["max_connections"] == 1_000
