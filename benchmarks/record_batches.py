"""What record batches cost in this process alone, ours beside aiokafka's own builder and reader, and every codec.

Prints {"value": µs per record that `encode` takes, …}: times in µs per record, the best of some rounds, for messages of
four measures without headers and with those of `telemetry.raw`; ratios, how many times as long the others take.
"""

import argparse
import json
import timeit
from collections.abc import Callable
from functools import partial

from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from load import messages

from headrace.engine.kafka import record_format
from headrace.engine.kafka.encoding import BATCH_BYTES, EncodedBatch, encode
from headrace.engine.kafka.record_columns import read_columns
from headrace.engine.kafka.record_format import COMPRESSION, MAGIC
from headrace.engine.kafka.record_rows import Contents, read_rows
from headrace.engine.records import Records
from headrace.schemas import topics

#: What aiokafka asks lz4 for.
AIOKAFKA_LZ4_LEVEL = 9


def some_records(total: int) -> tuple[Records, Records]:
    """The same records without headers and with."""
    keys, stamps, payloads = (list(column) for column in zip(*messages(total), strict=True))
    ids: list[bytes | None] = [b"%022d" % number for number in range(total)]
    same = {topics.PROFILE: b"bench", topics.DEVICE_TYPE: b"environmental", topics.SOURCE: b"bench"}
    return Records(keys, payloads, stamps), Records(keys, payloads, stamps, {topics.MESSAGE_ID: ids, **same})


def encode_all(records: Records) -> list[EncodedBatch]:
    """Ours, uncompressed."""
    return list(encode(records, "none"))


def build_one_by_one(records: Records) -> list[bytes]:
    """As aiokafka's producer does: a call of the same compiled builder per record."""
    names = list(records.headers)
    headers = [records.header(name) for name in names]
    batches = []
    builder, number = _builder(), 0
    for stamp, key, value, *row in zip(records.timestamps, records.keys, records.values, *headers, strict=True):
        named = list(zip(names, row, strict=True))
        if builder.append(number, stamp, key, value, named) is None:
            batches.append(bytes(builder.build()))
            builder, number = _builder(), 0
            builder.append(number, stamp, key, value, named)
        number += 1
    return [*batches, bytes(builder.build())]


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(MAGIC, 0, 0, -1, -1, -1, BATCH_BYTES)


def read_all(read: Callable[[bytes, int], Contents | None], batches: list[EncodedBatch]) -> None:
    """One of our readers."""
    for batch in batches:
        read(batch.payload, batch.total)


def read_objects(batches: list[bytes]) -> None:
    """aiokafka's compiled reader, and the same columns of what it gives."""
    for batch in batches:
        rows = list(MemoryRecords(batch).next_batch())
        for name in ("offset", "timestamp", "key", "value"):
            [getattr(row, name) for row in rows]
        for header in zip(*(row.headers for row in rows), strict=True):
            [value for _, value in header]


def best(run: Callable[[], object], rounds: int) -> float:
    """Microseconds of the fastest round, without garbage collection."""
    return min(timeit.repeat(run, number=1, repeat=rounds)) * 1e6


def batch_figures(records: Records, rounds: int) -> dict[str, float]:
    """Writing and reading."""
    ours, theirs = encode_all(records), build_one_by_one(records)
    runs: dict[str, Callable[[], object]] = {
        "encode": partial(encode_all, records),
        "aiokafka_builder": partial(build_one_by_one, records),
        "read_columns": partial(read_all, read_columns, ours),
        "read_rows": partial(read_all, read_rows, ours),
        "aiokafka_reader": partial(read_objects, theirs),
    }
    found = {name: best(run, rounds) / len(records) for name, run in runs.items()}
    return found | {
        "aiokafka_builder_ratio": found["aiokafka_builder"] / found["encode"],
        "read_rows_ratio": found["read_rows"] / found["read_columns"],
        "aiokafka_reader_ratio": found["aiokafka_reader"] / found["read_columns"],
    }


def codec_figures(records: Records, rounds: int) -> dict[str, dict[str, float]]:
    """Time and bytes per record of each codec, lz4 as aiokafka has it too, and both beside zstd's."""
    payloads = [batch.payload for batch in encode_all(records)]
    codecs = {name: partial(record_format.compress, code) for name, code in COMPRESSION.items() if code}
    codecs["aiokafka_lz4"] = partial(codec.lz4_encode, level=AIOKAFKA_LZ4_LEVEL)
    found = {}
    for name, compress in codecs.items():
        packed = [compress(payload) for payload in payloads]
        seconds = best(partial(lambda one: [one(payload) for payload in payloads], compress), rounds)
        found[name] = {"us": seconds / len(records), "bytes": sum(map(len, packed)) / len(records)}
    zstd = found["zstd"]
    return {name: own | {f"{key}_ratio": own[key] / zstd[key] for key in zstd} for name, own in found.items()}


def measure(total: int, rounds: int) -> dict[str, object]:
    """All figures."""
    plain, raw = some_records(total)
    without, with_headers = batch_figures(plain, rounds), batch_figures(raw, rounds)
    codecs = codec_figures(raw, rounds)
    return {"value": without["encode"], "without_headers": without, "with_headers": with_headers, "codecs": codecs}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.messages, arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
