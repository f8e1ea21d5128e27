"""Tiers of tests: what needs a server, what is left out by name, and what must never be skipped in CI."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from hypothesis import HealthCheck, settings
from local_kafka.cluster import Cluster
from local_kafka.jars import missing_tools

from headrace.connectors.postgres_server import PostgresServer
from tests.databases import Connect, fresh_database
from tests.redis_server import RedisServer, find_redis

#: Says whether something is there; if not, skips the test on a laptop and fails it in CI.
Require = Callable[[object, str, str], None]

IN_CI = os.environ.get("CI") == "true"
#: Names a PostgreSQL server with the extension, as a connection URL.
TIMESCALEDB_URL = "HEADRACE_TEST_TIMESCALEDB_URL"
#: Names a PostgreSQL to test on, as a connection URL; without it the tests start the embedded one.
TEST_POSTGRES = "HEADRACE_TEST_POSTGRES"
#: Names a Kafka to test on, as host:port[,host:port]; without it the tests start one.
TEST_KAFKA = "HEADRACE_TEST_KAFKA"
#: Names a Redis to test on, as a URL; tests empty it. Without it they start one.
TEST_REDIS = "HEADRACE_TEST_REDIS"

_LEFT_OUT = pytest.StashKey[list[str]]()

# Two busy cores make any limit per example, or for making one up, a coin toss; pytest-timeout has the last word.
settings.register_profile(
    "headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=IN_CI, print_blob=True
)
settings.load_profile("headrace")


class ChaosSize(NamedTuple):
    """How long a chaos test goes on: number of kills, and seconds of load."""

    kills: int
    seconds: float


class KafkaServer(Protocol):
    """A running Kafka."""

    @property
    def bootstrap(self) -> str:
        """Its brokers, as host:port[,host:port]."""


class ExternalKafka(NamedTuple):
    """A Kafka that somebody else runs."""

    bootstrap: str


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(condition, what, how_to_get)`: goes on if `condition` holds, else skips (laptop) or fails (CI)."""

    def check(condition: object, what: str, how_to_get: str) -> None:
        if condition:
            return
        message = f"{what} is missing; {how_to_get}"
        if IN_CI:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    return check


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """One PostgreSQL that the whole session shares: make databases of your own, and leave it running."""
    if TEST_POSTGRES in os.environ:
        yield {"dsn": os.environ[TEST_POSTGRES]}
        return
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield asyncio.run(server.start()).connect_arguments()
    asyncio.run(server.stop())


@pytest.fixture
async def database(postgres: Connect) -> AsyncIterator[Connect]:
    """An empty database of its own, as arguments for `asyncpg.connect`."""
    async with fresh_database(postgres) as connect:
        yield connect


@pytest.fixture(scope="session")
def kafka(require: Require) -> Iterator[KafkaServer]:
    """One Kafka that the whole session shares: give topics and groups names of your own, and leave it running."""
    if os.environ.get(TEST_KAFKA):
        yield ExternalKafka(os.environ[TEST_KAFKA])
        return
    _require_kafka_tools(require)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_url(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Redis that the whole session shares; a test may empty it. To break one, start a `RedisServer`."""
    if os.environ.get(TEST_REDIS):
        yield os.environ[TEST_REDIS]
        return
    require(find_redis(), "redis-server", "install the package `redis-server`")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def kafka_tools(require: Require) -> None:
    """What a test needs that starts a `Cluster` of its own, to break it or to log in."""
    _require_kafka_tools(require)


def _require_kafka_tools(require: Require) -> None:
    missing = missing_tools()
    require(not missing, " and ".join(missing), f"apt-get install {' '.join(missing.values())}")


@pytest.fixture(scope="session")
def chaos_size(pytestconfig: pytest.Config) -> ChaosSize:
    """Size of the chaos tests: short by default, long with `make chaos`."""
    return ChaosSize(pytestconfig.getoption("--chaos-kills"), pytestconfig.getoption("--chaos-seconds"))


@pytest.fixture(scope="session")
def data_path(pytestconfig: pytest.Config) -> str:
    """Folder of real data sets, for tests marked `data`."""
    return str(pytestconfig.getoption("--data"))


def pytest_configure(config: pytest.Config) -> None:
    """Everything temporary goes into one folder that is removed: root's PostgreSQL keeps its data beside tmp_path.

    The processes of xdist inherit the folder of the first, as tmp_path lies in that.
    """
    if hasattr(config, "workerinput"):
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-tests-"))
    folder.chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tiers."""
    group = parser.getgroup("headrace")
    group.addoption("--chaos-kills", type=int, default=3, help="kills per chaos test")
    group.addoption("--chaos-seconds", type=float, default=15.0, help="seconds of load per chaos test")
    group.addoption("--examples", type=int, default=500, help="histories per state machine")
    group.addoption("--data", metavar="PATH", help="run the tests marked `data` on the data sets in this folder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot run by its nature, and remember it by name."""
    left_out = [("data", "--data PATH was not given")] if config.getoption("--data") is None else []
    if TIMESCALEDB_URL not in os.environ:
        left_out.append(("timescaledb", f"no {TIMESCALEDB_URL} in the environment"))
    for marker, reason in left_out:
        unable = [item for item in items if item.get_closest_marker(marker)]
        if unable:
            items[:] = [item for item in items if item not in unable]
            config.hook.pytest_deselected(items=unable)
            config.stash.setdefault(_LEFT_OUT, []).append(f"{marker} ({reason}):")
            config.stash[_LEFT_OUT] += [f"  {item.nodeid}" for item in unable]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With several processes only theirs collect tests: take over what one of them left out; all leave out the same."""
    node.config.stash[_LEFT_OUT] = node.workeroutput.get("left_out", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test fails the run: a tier that nobody runs protects nobody."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_LEFT_OUT, [])
        return
    if IN_CI and session.exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left out, and what was skipped where nothing may be."""
    left_out = config.stash.get(_LEFT_OUT, [])
    if left_out:
        terminalreporter.section("left out on this machine")
        for line in left_out:
            terminalreporter.write_line(line)
    skipped = _skipped(config)
    if IN_CI and skipped:
        terminalreporter.section("skipped with CI=true: failing the run", red=True)
        for name in skipped:
            terminalreporter.write_line(name)


def _skipped(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [report.nodeid for report in reporter.stats.get("skipped", [])] if reporter else []
