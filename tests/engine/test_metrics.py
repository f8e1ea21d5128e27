"""The list of metrics, and the numbers kept for it."""

import ast
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from headrace.engine.metric_names import (
    BUCKETS,
    LABELS,
    METRICS,
    CounterName,
    GaugeName,
    HistogramName,
    Kind,
    Label,
    MetricName,
    with_tables,
)
from headrace.engine.metrics import MAX_LABEL, OTHER, Metrics

ROOT = Path(__file__).parent.parent.parent
KINDS: dict[Kind, Any] = {"counter": CounterName, "gauge": GaugeName, "histogram": HistogramName}
#: Kind of metric that each method of `Metrics` is for.
METHODS = {
    "count": "counter",
    "set": "gauge",
    "set_state": "gauge",
    "replace": "gauge",
    "remove": "gauge",
    "observe": "histogram",
}


def samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Every exported value, by sample name and label values in alphabetical order of the labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in metrics.collect():
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[key] for key in sorted(sample.labels))] = sample.value
    return found


def recording_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in headrace that records a metric by name, with where it is."""
    for path in sorted((ROOT / "headrace").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if node.func.attr in METHODS and isinstance(first, ast.Constant) and first.value in METRICS:
                    yield f"{path.name}:{node.lineno}", node


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_every_name_under_its_kind(kind: Kind) -> None:
    """The names that can be counted, set or observed are those that the list has with that kind."""
    assert {name for name, metric in METRICS.items() if metric.kind == kind} == set(get_args(KINDS[kind]))


@pytest.mark.parametrize("name", METRICS)
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    """Prefix, `_total` for counters and for nothing else, base units only."""
    kind = {each: metric.kind for each, metric in METRICS.items()}[name]  # type: ignore[index]

    assert name.startswith("headrace_")
    assert name.endswith("_total") == (kind == "counter")
    assert name.endswith("_seconds") or kind != "histogram"
    assert not any(unit in name for unit in ("_ms", "milli", "_minutes", "_kb"))


def test_every_label_is_explained_and_used() -> None:
    """Labels of the list, the type and the explanations are the same."""
    used = {label for metric in METRICS.values() for label in metric.labels}

    assert used == set(get_args(Label)) == set(LABELS)


def test_no_label_names_a_device_or_holds_free_text() -> None:
    """What grows with devices or messages is no label."""
    assert not {"device", "device_id", "message_id", "key", "error", "tenant"} & set(get_args(Label))


def test_page_is_made_from_the_list() -> None:
    """docs/metrics.md has the tables as they are now; `python -m headrace.engine.metric_names` writes them."""
    page = (ROOT / "docs" / "metrics.md").read_text()

    assert with_tables(page) == page
    assert re.findall(r"^\| `(headrace_\w+)` \|", page, re.MULTILINE) == list(METRICS)


def test_every_call_gives_the_declared_labels() -> None:
    """Whoever records a metric uses the method of its kind and its labels, and words that the list has."""
    calls = list(recording_calls())

    assert calls
    for place, call in calls:
        assert isinstance(call.func, ast.Attribute)
        metric = METRICS[cast(MetricName, ast.literal_eval(call.args[0]))]
        assert METHODS[call.func.attr] == metric.kind, place
        labels = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg not in ("amount", None)}
        if call.func.attr == "set_state":
            labels["state"] = call.args[1]
        if call.func.attr not in ("replace", "remove") and all(keyword.arg for keyword in call.keywords):
            assert labels.keys() == set(metric.labels), place
        for label, value in labels.items():
            words = LABELS[label][1]  # type: ignore[index]
            if words and isinstance(value, ast.Constant):
                assert value.value in words, place


def test_counts_add_up_by_labels() -> None:
    """Each combination of labels has a sum of its own."""
    metrics = Metrics()

    metrics.count("headrace_commit_failures_total", group="a", reason="refused")
    metrics.count("headrace_commit_failures_total", 2, group="a", reason="refused")
    metrics.count("headrace_commit_failures_total", group="a", reason="failed")

    assert samples(metrics)["headrace_commit_failures_total"] == {("a", "refused"): 3, ("a", "failed"): 1}


def test_counter_without_labels_starts_at_zero() -> None:
    """It is exported before it counts, so that the first count is seen as growth."""
    assert samples(Metrics())["headrace_intake_records_total"] == {(): 0}


def test_gauges_are_set_replaced_and_removed() -> None:
    """A gauge has its newest value; those of partitions that are gone go too."""
    metrics = Metrics()
    metrics.set("headrace_lag_records", 1, group="g", topic="t", partition=0)
    metrics.set("headrace_lag_records", 5, group="g", topic="t", partition=0)
    assert metrics.value("headrace_lag_records", group="g", topic="t", partition=0) == 5

    metrics.replace("headrace_lag_records", {("g", "t", "1"): 7, ("g", "t", "2"): 8, ("h", "t", "1"): 9})
    assert samples(metrics)["headrace_lag_records"] == {("g", "1", "t"): 7, ("g", "2", "t"): 8, ("h", "1", "t"): 9}

    metrics.remove("headrace_lag_records", partition=1)
    assert samples(metrics)["headrace_lag_records"] == {("g", "2", "t"): 8}


def test_state_is_one_of_all() -> None:
    """The state that holds is 1, every other one 0."""
    metrics = Metrics()

    metrics.set_state("headrace_sink_state", "connecting", sink="db")
    metrics.set_state("headrace_sink_state", "running", sink="db")

    others = ("connecting", "retrying", "probing", "standby")
    expected = {("db", "running"): 1} | {("db", state): 0 for state in others}
    assert samples(metrics)["headrace_sink_state"] == expected


def test_histogram_counts_into_its_buckets() -> None:
    """Bounds are inclusive and cumulative; sum and count are there."""
    metrics = Metrics()

    for seconds in (0.001, 0.002, 0.3, 1000.0):
        metrics.observe("headrace_commit_seconds", seconds, group="g")

    found = samples(metrics)
    buckets = found["headrace_commit_seconds_bucket"]
    assert [buckets["g", str(bound)] for bound in BUCKETS] == [1] + [2] * 7 + [3] * 7
    assert buckets["g", "+Inf"] == found["headrace_commit_seconds_count"]["g",] == 4
    assert found["headrace_commit_seconds_sum"]["g",] == pytest.approx(1000.303)


@pytest.mark.parametrize(
    "record",
    [
        lambda metrics: metrics.count("headrace_retries_total"),
        lambda metrics: metrics.count("headrace_retries_total", agent="a", device_id="d"),
        lambda metrics: metrics.count("headrace_retries_total", agnet="a"),
        lambda metrics: metrics.set("headrace_healthy", 1, agent="a"),
        lambda metrics: metrics.observe("headrace_commit_seconds", 1.0),
        lambda metrics: metrics.remove("headrace_lag_records", device_id="d"),
        lambda metrics: metrics.replace("headrace_lag_records", {("g", "t"): 1}),
    ],
)
def test_other_labels_are_refused(record: Callable[[Metrics], None]) -> None:
    """A label that the metric does not have, or one that is missing, is a mistake of the caller."""
    metrics = Metrics()
    before = samples(metrics)

    with pytest.raises(ValueError, match=r"headrace_|argument"):
        record(metrics)

    assert samples(metrics) == before


def test_word_that_the_list_does_not_have_is_other() -> None:
    """A label with few values takes no free text."""
    metrics = Metrics()

    metrics.count("headrace_dead_letters_total", agent="a", reason="temperature of d-17 is not a number")

    assert samples(metrics)["headrace_dead_letters_total"] == {("a", OTHER): 1}


def test_series_are_bounded_whatever_the_labels() -> None:
    """Beyond the most, counters and histograms go on together, gauges are dropped, and all are counted."""
    metrics = Metrics(max_series=100)

    for number in range(1_000):
        metrics.count("headrace_retries_total", agent=f"device-{number}")
        metrics.observe("headrace_agent_batch_seconds", 1.0, agent=f"device-{number}")
        metrics.set("headrace_watermark_delay_seconds", 1.0, agent=f"device-{number}", partition=0)
    metrics.count("headrace_retries_total", agent="device-7")

    found = samples(metrics)
    assert len(found["headrace_retries_total"]) == len(found["headrace_agent_batch_seconds_count"]) == 101
    assert found["headrace_retries_total"][OTHER,] == 900
    assert found["headrace_retries_total"]["device-7",] == 2
    assert sum(found["headrace_agent_batch_seconds_count"].values()) == 1_000
    assert len(found["headrace_watermark_delay_seconds"]) == 100
    assert set(found["headrace_series_refused_total"].values()) == {900}
    assert len(found["headrace_series_refused_total"]) == 3


def test_replaced_gauges_are_bounded_too() -> None:
    """A collector that reports too many partitions fills no memory."""
    metrics = Metrics(max_series=10)

    metrics.replace("headrace_lag_records", {("g", "t", str(number)): number for number in range(30)})

    assert len(samples(metrics)["headrace_lag_records"]) == 10
    assert metrics.value("headrace_series_refused_total", metric="headrace_lag_records") == 20


def test_label_values_are_cut() -> None:
    """A name of any length takes the room of a topic's at most."""
    metrics = Metrics()

    metrics.count("headrace_retries_total", agent="a" * 10_000)

    assert samples(metrics)["headrace_retries_total"] == {("a" * MAX_LABEL,): 1}


def test_two_sets_of_metrics_do_not_mix() -> None:
    """Several applications in one process count for themselves."""
    one, other = Metrics(), Metrics()

    one.count("headrace_commits_total", group="g")

    assert one.value("headrace_commits_total", group="g") == 1
    assert other.value("headrace_commits_total", group="g") == 0


def test_threads_lose_no_count() -> None:
    """Counting from several threads while another exports adds up."""
    metrics, rounds = Metrics(), 2_000

    def work() -> None:
        for number in range(rounds):
            metrics.count("headrace_records_read_total", 3, topic="t", partition=number % 7)
            metrics.observe("headrace_commit_seconds", 0.01, group="g")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        samples(metrics)
    for thread in threads:
        thread.join()

    assert sum(samples(metrics)["headrace_records_read_total"].values()) == 4 * rounds * 3
    assert metrics.value("headrace_commit_seconds", group="g") == 4 * rounds
