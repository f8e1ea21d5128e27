"""The engines that do the job, and what each cannot do."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import orjson

import headrace
from peers.environments import JAVA_PROJECT, java, pinned, python
from peers.readings import MEASURES, Aggregate, Aggregates, Window

Guarantee = Literal["at-least-once", "exactly-once"]
JOBS = Path(__file__).parent / "jobs"
#: Between two commits of the rows that promise exactly once, seconds.
COMMIT_SECONDS = 0.1


def _lists(key: bytes, value: bytes) -> tuple[Window, Aggregates]:
    return _window(key, orjson.loads(value))


def _quix(key: bytes, value: bytes) -> tuple[Window, Aggregates]:
    document = orjson.loads(value)
    return _window(key, document["value"] | {"start": document["start"]})


def _headrace(key: bytes, value: bytes) -> tuple[Window, Aggregates]:
    document = orjson.loads(value)
    if document["kind"] != "closed":
        raise ValueError(f"{document['kind']} instead of a closed window")
    fields = Aggregate._fields
    lists = {name: [aggregates[each] for each in fields] for name, aggregates in document["measures"].items()}
    return _window(key, lists | {"start": document["start"]})


def _window(key: bytes, document: dict[str, Any]) -> tuple[Window, Aggregates]:
    return (key.decode(), document["start"]), {name: Aggregate(*document[name]) for name in MEASURES}


@dataclass(frozen=True)
class Engine:
    """One peer.

    Args:
        command: makes its environment, and says how its program is run.
        version: as pinned.
        configuration: of each row that there is, in words.
        cannot: why there is no such row, with the source.
        read: what one record of the output topic says, from key and value.
        ends: whether its program ends when it has read everything, instead of waiting for more.
    """

    name: str
    command: Callable[[], list[str]]
    version: Callable[[], str]
    configuration: Mapping[str, str]
    cannot: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[bytes, bytes], tuple[Window, Aggregates]] = _lists
    ends: bool = False

    @staticmethod
    def commit_seconds(guarantee: str) -> float | None:
        """Between two commits; None for the engine's own default."""
        return COMMIT_SECONDS if guarantee == "exactly-once" else None


def _in_environment(peer: str) -> Callable[[], list[str]]:
    return lambda: [str(python(peer)), str(JOBS / f"{peer}_job.py")]


def _kafka_streams_version() -> str:
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    found = ElementTree.parse(JAVA_PROJECT / "pom.xml").findtext("m:properties/m:kafka.version", "", namespace)
    return f"kafka-streams {found}"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            "headrace",
            lambda: [sys.executable, str(JOBS / "headrace_job.py")],
            lambda: f"headrace {headrace.__version__}",
            {"exactly-once": "Rollup in an app; Kafka transactions; windows in memory with a changelog"},
            {"at-least-once": "always exactly once: outputs, changelog and positions are one Kafka transaction"},
            _headrace,
        ),
        Engine(
            "faust",
            _in_environment("faust"),
            lambda: f"faust-streaming {pinned('faust', 'faust-streaming')}",
            {
                "at-least-once": "memory table with a changelog; windows closed by the agent; orjson, uvloop, Cython",
                "exactly-once": "processing_guarantee=exactly_once; memory table with a changelog; windows closed by "
                "the agent; orjson, uvloop, Cython",
            },
        ),
        Engine(
            "quix",
            _in_environment("quix"),
            lambda: f"quixstreams {pinned('quix', 'quixstreams')}",
            {
                "at-least-once": "tumbling_window().agg(Reduce).final(); RocksDB with a changelog; commits every 5 s",
                "exactly-once": "processing_guarantee=exactly-once; tumbling_window().agg(Reduce).final(); "
                "RocksDB with a changelog",
            },
            read=_quix,
        ),
        Engine(
            "bytewax",
            _in_environment("bytewax"),
            lambda: f"bytewax {pinned('bytewax', 'bytewax')}",
            {"at-least-once": "fold_window(EventClock, ordered=False); recovery store in SQLite, snapshots every 10 s"},
            {"exactly-once": "no transactions: it sends the epoch it resumes from again (docstring of KafkaSink)"},
            ends=True,
        ),
        Engine(
            "faststream",
            _in_environment("faststream"),
            lambda: f"faststream {pinned('faststream', 'faststream')}",
            {
                "at-least-once": "batch subscriber of 5,000, committed per batch; it has no windows: by hand in a "
                "dict, lost with the process"
            },
            {"exactly-once": "no Kafka transactions (its maintainer in issue 2512), and no state that could be in one"},
        ),
        Engine(
            "kafka-streams",
            lambda: [*java(), "peers.WindowJob"],
            _kafka_streams_version,
            {
                "at-least-once": "windowed aggregate, EmitStrategy.onWindowClose; cached in-memory store with a "
                "changelog; 1 thread; commits every 30 s",
                "exactly-once": "exactly_once_v2; windowed aggregate, EmitStrategy.onWindowClose; "
                "cached in-memory store with a changelog; 1 thread",
            },
        ),
    )
}
