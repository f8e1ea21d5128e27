"""Rows of a file as messages: device id, event time and JSON payload, a chunk at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl

from headrace.connectors.event_times import NO_TIME, TIME_PARTS, parts_parser, time_parser
from headrace.connectors.file_formats import Chunk, DataFile, Ints, stem
from headrace.connectors.json_columns import encode_columns
from headrace.connectors.mapping import TIMESTAMP, Mapping
from headrace.schemas import topics

#: Device id of a row that names none.
UNKNOWN_DEVICE = topics.NO_DEVICE.encode()


@dataclass(slots=True)
class Mapped:
    """Messages of n rows, in file order.

    Args:
        times: (n,) int64, event time, ms since 1970 UTC; `NO_TIME` for a row that could not be mapped, whose payload is
            then the row's own bytes.
    """

    device_ids: list[bytes]
    payloads: list[bytes]
    times: Ints


class RowMapper:
    """Maps the chunks of one file.

    A row without device or time, or broken as a row, is passed on as its raw bytes, never dropped: the pipeline
    dead-letters it, and as many messages are accepted as there are rows.
    """

    def __init__(self, mapping: Mapping, file: DataFile) -> None:
        self._mapping = mapping
        self._na = frozenset(mapping.na)
        self.fields = mapping.fields(file.columns)
        self.columns = frozenset((*mapping.key_columns, *self.fields))
        device = mapping.device
        self._constant = stem(file.path) if device.file_stem else device.constant
        time = mapping.time
        parts = tuple(part for part in TIME_PARTS if part in time.columns)
        self._time_columns = [time.column] if time.column else [time.columns[part] for part in parts]
        self._parse_time = time_parser(time.format, time.zone)
        self._parse_parts = parts_parser(parts, time.zone) if parts else None

    def map(self, chunk: Chunk) -> Mapped:
        """The messages of `chunk`, one per row."""
        if chunk.table is not None:
            devices, times, payloads = self._map_table(chunk.table)
        else:
            devices, times, payloads = self._map_documents(chunk.documents or [])
        for index, (device, time) in enumerate(zip(devices, times, strict=True)):
            if device is None or time is None or index in chunk.broken:
                payloads[index] = chunk.raw(index)
                times[index] = None
        unknown = UNKNOWN_DEVICE if self._constant is None else self._constant.encode()
        return Mapped(
            [unknown if device is None else device.encode() for device in devices],
            payloads,
            np.array([NO_TIME if time is None else time for time in times], dtype=np.int64),
        )

    def _map_table(self, table: pl.DataFrame) -> tuple[list[str | None], list[int | None], list[bytes]]:
        column = self._mapping.device.column
        devices = self._devices(table[column].cast(pl.String).to_list() if column else None, table.height)
        times = self._times([table[name].to_list() for name in self._time_columns])
        encoded = encode_columns(table.select(*self.fields), self._na, self._mapping.text)
        # One text per field, `,"name":value`, or null where there is no value; concat_str leaves the nulls out.
        stamps = pl.Series(times, dtype=pl.Int64).cast(pl.String)
        parts = [pl.lit(f'{{"{TIMESTAMP}":'), pl.lit(stamps)]
        for source, field in self.fields.items():
            parts.append(pl.lit(f",{orjson.dumps(field).decode()}:") + pl.col(source))
        payloads = encoded.select(pl.concat_str([*parts, pl.lit("}")], ignore_nulls=True)).to_series()
        return devices, times, payloads.cast(pl.Binary).to_list()

    def _map_documents(
        self, documents: Sequence[dict[str, Any] | None]
    ) -> tuple[list[str | None], list[int | None], list[bytes]]:
        rows = [document or {} for document in documents]
        column = self._mapping.device.column
        devices = self._devices([row.get(column) for row in rows] if column else None, len(rows))
        times = self._times([[row.get(name) for row in rows] for name in self._time_columns])
        keys, na, text, fields = frozenset(self._mapping.key_columns), self._na, self._mapping.text, self.fields
        everything = self._mapping.measures is None
        payloads = []
        for index, row in enumerate(rows):
            payload: dict[str, Any] = {TIMESTAMP: times[index]}
            for name, value in row.items():
                if value is None or name in keys or (isinstance(value, str) and value in na):
                    continue
                field = fields.get(name, name if everything else None)
                if field == TIMESTAMP:
                    times[index] = None
                elif field is not None:
                    payload[field] = str(value) if name in text and isinstance(value, int | float) else value
            payloads.append(orjson.dumps(payload))
        return devices, times, payloads

    def _devices(self, values: Sequence[object] | None, count: int) -> list[str | None]:
        if values is None:
            return [self._constant] * count
        texts = [value if isinstance(value, str) else str(value) if type(value) is int else "" for value in values]
        names = {text: text.strip() for text in set(texts)}
        known = {text: None if not name or name in self._na else name for text, name in names.items()}
        return [known[text] for text in texts]

    def _times(self, columns: list[list[object]]) -> list[int | None]:
        if self._parse_parts is None:
            return [self._parse_time(value) for value in columns[0]]
        return [self._parse_parts(values) for values in zip(*columns, strict=True)]
