"""What a worker shows over HTTP, scraped over real sockets and read back with Prometheus's own parser."""

import json
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from headrace.engine.clock import SteppedClock, SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.health import Health, Progress
from headrace.engine.metric_names import METRICS, CounterName
from headrace.engine.metrics import Metrics
from headrace.engine.monitor import MAX_SHOWN, Monitor, MonitorSettings

#: 2026-11-21 10:00 UTC.
START = 1_795_255_200_000
START_TEXT = "2026-11-21T10:00:00+00:00"

Watch = Callable[..., Monitor]


@pytest.fixture
def clock() -> SteppedClock:
    """A clock that the test moves."""
    return SteppedClock(START)


@pytest.fixture
def health(clock: SteppedClock) -> Health:
    """Health of a worker that has only just begun."""
    return Health(clock)


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of a worker."""
    return Metrics()


@pytest.fixture
def watch(metrics: Metrics, health: Health, clock: SteppedClock) -> Iterator[Watch]:
    """Starts monitors, on any free port unless told otherwise."""
    with ExitStack() as stack:

        def start(index: int = 0, **settings: Any) -> Monitor:
            made = MonitorSettings(**({"port": 0} | settings))
            return stack.enter_context(Monitor(made, metrics, health, clock, index=index))

        yield start


def get(monitor: Monitor, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    """A response and its body."""
    connection = HTTPConnection("127.0.0.1", monitor.port, timeout=120)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def judged(monitor: Monitor, path: str) -> tuple[int, Any]:
    """Status and document of /health or /ready."""
    response, body = get(monitor, path)
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(body)


def scrape(monitor: Monitor) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample, by name and labels."""
    response, body = get(monitor, "/metrics")
    assert response.status == HTTPStatus.OK
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series
            series[labels] = sample.value
    return found


def test_everything_exported_is_on_the_list(watch: Watch, metrics: Metrics) -> None:
    """Each family has the kind and the meaning of the list; beside them there is only the process's own."""
    for name in get_args(CounterName):
        metrics.count(name, 2, **dict.fromkeys(METRICS[name].labels, "x"))

    _, body = get(watch(), "/metrics")

    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    for name, metric in METRICS.items():
        family = families.pop(name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
    assert families
    assert {name.partition("_")[0] for name in families} == {"process"}


def test_values_come_back_as_they_were_recorded(watch: Watch, metrics: Metrics) -> None:
    """Through text and parser: counters, gauges and histograms with their labels."""
    metrics.count("headrace_records_read_total", 12_345_678, topic="telemetry.raw", partition=3)
    metrics.set("headrace_watermark_delay_seconds", -1.25, agent="rollup", partition=0)
    metrics.set("headrace_committed_offset", 2**53 - 1, group="g", topic="t", partition=0)
    metrics.observe("headrace_commit_seconds", 0.02, group="g")

    found = scrape(watch())

    assert found["headrace_records_read_total"] == {(("partition", "3"), ("topic", "telemetry.raw")): 12_345_678}
    assert found["headrace_watermark_delay_seconds"] == {(("agent", "rollup"), ("partition", "0")): -1.25}
    assert set(found["headrace_committed_offset"].values()) == {2**53 - 1}
    assert found["headrace_commit_seconds_bucket"][("group", "g"), ("le", "0.025")] == 1
    assert found["headrace_commit_seconds_bucket"][("group", "g"), ("le", "0.01")] == 0
    assert found["headrace_commit_seconds_sum"] == {(("group", "g"),): 0.02}


@settings(max_examples=25)
@given(agents=st.lists(st.text(max_size=20), unique=True, max_size=5))
def test_any_text_survives_as_a_label(agents: list[str]) -> None:
    """Quotes, backslashes, line breaks and whatever else a name may hold break no scrape."""
    metrics, clock = Metrics(), SystemClock()
    for number, agent in enumerate(agents):
        metrics.count("headrace_retries_total", number + 1, agent=agent)
    metrics.count("headrace_retries_total", 99, agent="lone \ud800 surrogate")

    answer = Monitor(MonitorSettings(), metrics, Health(clock), clock).answer("GET", "/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    values = {sample.labels["agent"]: sample.value for sample in families["headrace_retries"].samples}
    assert values == {agent: number + 1 for number, agent in enumerate(agents)} | {"lone ? surrogate": 99}


def test_process_is_measured(watch: Watch) -> None:
    """Memory and time of this process, on Linux."""
    found = scrape(watch())

    assert found["process_resident_memory_bytes"][()] > 1_000_000
    assert found["process_cpu_seconds_total"][()] > 0


def test_healthy_until_something_stands_still(watch: Watch, health: Health, clock: SteppedClock) -> None:
    """Who, since when, and what to do; and as a metric."""
    monitor = watch()
    assert judged(monitor, "/health") == (200, {"status": "ok", "problems": []})
    assert scrape(monitor)["headrace_healthy"] == {(): 1}

    health.observe("group g", {"g telemetry.raw[3]": Progress(7, 2)})
    clock.advance(75_000)
    health.observe("group g", {"g telemetry.raw[3]": Progress(7, 2)})

    status, document = judged(monitor, "/health")
    (problem,) = document["problems"]
    assert (status, document["status"]) == (503, "failing")
    assert problem["component"] == "g telemetry.raw[3]"
    assert problem["problem"] == "stands at 7 for 75 s, with 2 to go"
    assert problem["since"] == START_TEXT
    assert problem["remedy"]
    assert scrape(monitor)["headrace_healthy"] == {(): 0}


def test_ready_when_the_agents_are(watch: Watch, health: Health) -> None:
    """503 with the reason before; and as a metric."""
    monitor = watch()
    problem = {"component": "agents", "problem": "not started yet", "since": START_TEXT}
    assert judged(monitor, "/ready") == (503, {"status": "failing", "problems": [problem]})
    assert scrape(monitor)["headrace_ready"] == {(): 0}

    health.ready("agents")

    assert judged(monitor, "/ready") == (200, {"status": "ok", "problems": []})
    assert scrape(monitor)["headrace_ready"] == {(): 1}


async def test_answers_while_the_event_loop_is_blocked(watch: Watch, health: Health, clock: SteppedClock) -> None:
    """This coroutine asks without giving its loop back: the answer says since when, and where the loop hangs."""
    monitor = watch()
    health.beat("agents")
    clock.advance(12_000)

    status, document = judged(monitor, "/health")

    (problem,) = document["problems"]
    assert status == 503
    assert problem["component"] == "event loop agents"
    assert problem["problem"].startswith("blocked for 12 s, in ")
    assert ", called by tests.engine.test_monitor.get:" in problem["problem"]
    assert judged(monitor, "/ready")[0] == 503
    assert scrape(monitor)["headrace_healthy"] == {(): 0}


def test_many_problems_are_cut(watch: Watch, health: Health) -> None:
    """The answer shows some, and how many more there are."""
    for number in range(256):
        health.broken(f"telemetry.raw[{number}]", "stopped", "repair the agent")

    _, document = judged(watch(), "/health")

    assert len(document["problems"]) == MAX_SHOWN
    assert document["more"] == 256 - MAX_SHOWN


def test_any_text_survives_in_a_problem(watch: Watch, health: Health) -> None:
    """An error message may hold anything."""
    health.broken("a\n\ud800", 'says "no"\0', "")

    _, document = judged(watch(), "/health")

    assert document["problems"][0]["component"] == "a\n\ud800"
    assert document["problems"][0]["problem"] == 'says "no"\0'


@pytest.mark.parametrize("path", ["/", "/metrics/", "/Health", "/../etc/passwd", "/metrics%00"])
def test_nothing_else_is_there(watch: Watch, path: str) -> None:
    """404 that names what is."""
    response, body = get(watch(), path)

    assert response.status == HTTPStatus.NOT_FOUND
    assert b"/metrics, /health, /ready" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
def test_only_reading_is_allowed(watch: Watch, method: str) -> None:
    """405, naming what is allowed."""
    response, _ = get(watch(), "/health", method)

    assert response.status == HTTPStatus.METHOD_NOT_ALLOWED
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/health", "/ready"])
def test_head_is_get_without_a_body(watch: Watch, path: str) -> None:
    """The same status and type."""
    monitor = watch()

    got, _ = get(monitor, path)
    head, body = get(monitor, path, "HEAD")

    assert (head.status, head.headers["Content-Type"]) == (got.status, got.headers["Content-Type"])
    assert body == b""


def test_off_unless_configured(watch: Watch) -> None:
    """Without a port nothing listens."""
    assert MonitorSettings().port is None
    assert watch(port=None).port == 0


def test_loopback_unless_configured() -> None:
    """The address of nobody else."""
    assert MonitorSettings().host == "127.0.0.1"


def test_workers_count_up_from_the_port(watch: Watch) -> None:
    """The second worker of a machine listens one further."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    monitor = watch(index=1, port=port - 1)

    assert monitor.port == port
    assert get(monitor, "/health")[0].status == HTTPStatus.OK


def test_port_in_use_is_a_mistake_of_the_configuration(watch: Watch) -> None:
    """It says which setting to change."""
    taken = watch().port

    with pytest.raises(ConfigError, match=rf"monitor\.port.* {taken}.*choose another"):
        watch(port=taken)


def test_ports_end(watch: Watch) -> None:
    """A worker too many has no port."""
    with pytest.raises(ConfigError, match=r"monitor\.port"):
        watch(index=1, port=65_535)


def test_host_that_does_not_exist_is_a_mistake_of_the_configuration(watch: Watch) -> None:
    """Without asking anybody on the network."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1\.5"):
        watch(host="127.0.0.1.5")


@pytest.mark.parametrize("settings", [{"port": -1}, {"port": 70_000}, {"host": ""}, {"stuck_after": math.inf}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    """Out of range is a mistake."""
    with pytest.raises(ValidationError):
        MonitorSettings(**settings)


def test_stop_can_be_repeated_and_undone(watch: Watch) -> None:
    """A monitor that was stopped listens no more, and can be started again."""
    monitor = watch()

    monitor.stop()
    monitor.stop()
    assert monitor.port == 0

    monitor.start()
    assert get(monitor, "/health")[0].status == HTTPStatus.OK
