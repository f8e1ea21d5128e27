"""What is counted and measured while headrace runs, by names of one list."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

from headrace import __version__
from headrace.engine.metric_names import BUCKETS, LABELS, METRICS, CounterName, GaugeName, HistogramName, MetricName

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

#: Most label combinations kept per metric: 256 partitions of 16 topics, or of 16 agents.
MAX_SERIES = 4096
#: Longest label value, characters: a topic of Kafka's has 249 at most.
MAX_LABEL = 249
#: Value of every label of what is counted beyond `MAX_SERIES`, and of a closed label that is given any other value.
OTHER = "other"

_Key = tuple[str, ...]


class _Histogram:
    """Values per bucket, the last without bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0


class Metrics:
    """The metrics of one process, or of one application in it. Safe for any number of threads.

    Recording costs about a microsecond and is meant to happen per batch or commit, never per record. The labels of a
    metric must be given by name, all of them. Memory is bounded whatever they are: beyond `max_series` combinations,
    counters and histograms go on under the labels "other", gauges are dropped, and both are counted.

    >>> metrics = Metrics()
    >>> metrics.count("headrace_commits_total", group="example")
    >>> metrics.value("headrace_commits_total", group="example")
    1.0
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._lock = Lock()
        self._values: dict[MetricName, dict[_Key, float]] = {}
        self._histograms: dict[MetricName, dict[_Key, _Histogram]] = {}
        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                self._histograms[name] = {} if metric.labels else {(): _Histogram()}
            else:
                self._values[name] = {} if metric.labels or metric.kind == "gauge" else {(): 0.0}
        self.set("headrace_build_info", 1, version=__version__)

    def count(self, name: CounterName, amount: float = 1, **labels: str | int) -> None:
        """Add `amount`, >= 0, to a counter."""
        key = _key(name, labels)
        with self._lock:
            series = self._values[name]
            key = self._bounded(name, series, key)
            series[key] = series.get(key, 0.0) + amount

    def set(self, name: GaugeName, value: float, **labels: str | int) -> None:
        """Give a gauge a value."""
        key = _key(name, labels)
        with self._lock:
            series = self._values[name]
            if self._bounded(name, series, key) == key:
                series[key] = value

    def set_state(self, name: GaugeName, state: str, **labels: str | int) -> None:
        """Give a gauge with a label `state` 1 for this state, 0 for all others."""
        for each in LABELS["state"][1]:
            self.set(name, float(each == state), state=each, **labels)

    def replace(self, name: GaugeName, values: Mapping[_Key, float]) -> None:
        """Give a gauge all its values at once; the key is the labels in order. What is not in `values` is gone."""
        with self._lock:
            series = self._values[name] = {}
            for labels, value in values.items():
                key = _key(name, dict(zip(METRICS[name].labels, labels, strict=True)))
                if self._bounded(name, series, key) == key:
                    series[key] = value

    def remove(self, name: GaugeName, **labels: str | int) -> None:
        """Drop the values of a gauge that have these labels; any number of them may be given."""
        wanted = [(place, str(labels[each])) for place, each in enumerate(METRICS[name].labels) if each in labels]
        if len(wanted) != len(labels):
            raise _wrong(name, labels)
        with self._lock:
            series = self._values[name]
            for key in [key for key in series if all(key[place] == value for place, value in wanted)]:
                del series[key]

    def observe(self, name: HistogramName, seconds: float, **labels: str | int) -> None:
        """Add a value to a histogram."""
        key = _key(name, labels)
        with self._lock:
            series = self._histograms[name]
            key = self._bounded(name, series, key)
            histogram = series.get(key)
            if histogram is None:
                histogram = series[key] = _Histogram()
            histogram.counts[bisect_left(BUCKETS, seconds)] += 1
            histogram.total += seconds

    def value(self, name: MetricName, **labels: str | int) -> float:
        """The value of a counter or gauge, or how many a histogram has; 0 if there was none."""
        key = _key(name, labels)
        with self._lock:
            if name in self._histograms:
                histogram = self._histograms[name].get(key)
                return float(sum(histogram.counts)) if histogram else 0.0
            return self._values[name].get(key, 0.0)

    def collect(self) -> "Iterator[Family]":
        """Everything as it is now, as families of the Prometheus client."""
        # Not at the top: the client brings an HTTP server and more along, and most commands never export.
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        with self._lock:
            values = {name: dict(series) for name, series in self._values.items()}
            histograms = {
                name: {key: (list(each.counts), each.total) for key, each in series.items()}
                for name, series in self._histograms.items()
            }
        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(name, metric.meaning, labels=metric.labels)
                for key, (counts, total) in histograms[name].items():
                    histogram.add_metric(key, _buckets(counts), total)
                yield histogram
            else:
                make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = make(name, metric.meaning, labels=metric.labels)
                for key, value in values[name].items():
                    family.add_metric(key, value)
                yield family

    def _bounded(self, name: MetricName, series: Mapping[_Key, object], key: _Key) -> _Key:
        """`key`, or the one that everything beyond the most combinations goes under. Called with the lock."""
        if key in series or len(series) < self._max_series:
            return key
        refused = self._values["headrace_series_refused_total"]
        refused[name,] = refused.get((name,), 0.0) + 1
        return (OTHER,) * len(key)


def _key(name: MetricName, labels: Mapping[str, str | int]) -> _Key:
    """Label values in the order of the list.

    Raises:
        ValueError: these are not the labels of the metric.
    """
    wanted = METRICS[name].labels
    if len(labels) != len(wanted) or any(label not in labels for label in wanted):
        raise _wrong(name, labels)
    return tuple(_text(str(labels[label]), LABELS[label][1]) for label in wanted)


def _text(value: str, values: Sequence[str]) -> str:
    """A label value as it is exported; `values` are all that there are, if any."""
    if values:
        return value if value in values else OTHER
    if not value.isascii():
        value = value.encode(errors="replace").decode()  # a lone surrogate would make the whole export fail
    return value[:MAX_LABEL]


def _wrong(name: MetricName, labels: Iterable[str]) -> ValueError:
    return ValueError(f"{name} has the labels {METRICS[name].labels}, not {tuple(labels)}")


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Bounds and how many values are at most as large, as the Prometheus client wants them."""
    bounds = [*map(str, BUCKETS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))
