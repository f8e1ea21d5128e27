"""Records for sinks, and what of them is newest, worked out record by record."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from headrace.engine.log import Append, Fetched, Log, TopicPartition, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.engine.records import Records
from headrace.schemas import topics

PARTITIONS = 3
#: Time of the clock that sinks are given, ms since 1970 UTC.
NOW_MS = 1_750_000_200_000
MINUTE_MS = 60_000

#: A record of the traffic: topic, device and value.
Sent = tuple[str, str, bytes]
#: By ("reading", device): time and values. By ("rollup", device, window): start, revision and measures.
Newest = dict[tuple[str, ...], dict[str, Any]]


def reading(device: str, ago: float, number: int, **more: Any) -> Sent:
    """A reading of `ago` seconds before NOW_MS; `number` makes its id, `more` goes on top of the document."""
    document = {
        "message_id": f"00000000-0000-4000-8000-{number:012}",
        "device_id": device,
        "device_type": "air",
        "time": NOW_MS - round(ago * 1000),
        "measures": {"co2": 400.0 + number},
    }
    return topics.READINGS, device, orjson.dumps(document | more)


def rollup(device: str, minutes_ago: int, revision: int = 0, **more: Any) -> Sent:
    """The minute that ended so many minutes before NOW_MS."""
    end = NOW_MS - NOW_MS % MINUTE_MS - minutes_ago * MINUTE_MS
    value = 20.0 + minutes_ago + revision / 10
    names = ("sum", "avg", "min", "max", "first", "last")
    document = {
        "device_id": device,
        "device_type": "air",
        "window": "1m",
        "window_seconds": 60,
        "start": end - MINUTE_MS,
        "end": end,
        "kind": "correction" if revision else "closed",
        "revision": revision,
        "measures": {"co2": {"count": 1} | dict.fromkeys(names, value)},
    }
    return topics.ROLLUPS, device, orjson.dumps(document | more)


def traffic(read: Sequence[str], devices: int = 5, rounds: int = 9) -> list[Sent]:
    """What a sink of these topics gets: late readings and windows, at the end too, repeats, corrections."""
    sent: list[Sent] = []
    for turn in range(rounds):
        for device in range(devices):
            number = turn * devices + device
            name = f"d{device} ü"
            ago = 100.0 - turn * 10 + (35.0 if turn % 3 == 2 else 0.0)
            sent.append(reading(name, ago, number))
            if turn == 4:
                sent.append(sent[-1])
            sent.append(rollup(name, rounds - turn))
            if turn % 2:
                sent.append(rollup(name, rounds - turn, revision=1))
            if turn in (5, rounds - 1):
                sent.append(rollup(name, rounds - turn + 2, revision=2))
    return of_topics(read, sent)


def of_topics(read: Sequence[str], sent: Iterable[Sent]) -> list[Sent]:
    """Those of the topics that a sink reads."""
    return [each for each in sent if each[0] in read]


async def append(log: Log, sent: Sequence[Sent]) -> None:
    """Append one record after the other, as agents do: a device's in one partition, in order."""
    partitioner = Partitioner(PARTITIONS)
    by_target: dict[TopicPartition, list[Sent]] = {}
    for each in sent:
        by_target.setdefault(TopicPartition(each[0], partitioner.partition(each[1].encode())), []).append(each)
    appends = [Append(target, records(values)) for target, values in by_target.items()]
    await log.commit(Transaction(appends=appends))


def records(sent: Sequence[Sent]) -> Records:
    """These values under their devices, appended at NOW_MS."""
    return Records([device.encode() for _, device, _ in sent], [value for *_, value in sent], [NOW_MS] * len(sent))


def fetched(sent: Sequence[Sent], base_offset: int = 0, partition: int = 0) -> Fetched:
    """Records of one topic as the log hands them out."""
    return Fetched(TopicPartition(sent[0][0], partition), base_offset, base_offset + len(sent), records(sent))


def newest(sent: Iterable[Sent]) -> Newest:
    """What is newest after all of `sent`: by event time, by start and revision; of equals the later one."""
    found: Newest = {}
    for topic, device, value in sent:
        document = orjson.loads(value)
        if topic == topics.READINGS:
            key: tuple[str, ...] = ("reading", device)
            values = document["measures"] | document.get("extra", {})
            entry = {"time": document["time"], "values": values}
            old = found.get(key)
            if old is None or old["time"] <= entry["time"]:
                found[key] = entry
        elif topic == topics.ROLLUPS:
            key = ("rollup", device, document.get("window", "1m"))
            entry = {name: document.get(name, 0) for name in ("start", "revision", "measures")}
            old = found.get(key)
            if old is None or (old["start"], old["revision"]) <= (entry["start"], entry["revision"]):
                found[key] = entry
    return found


def by_key(found: Newest) -> Mapping[tuple[str, ...], Any]:
    """Sorted, for a readable difference."""
    return dict(sorted(found.items()))
