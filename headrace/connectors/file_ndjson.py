"""NDJSON files as chunks of documents."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from headrace.connectors.file_formats import Chunk, Place
from headrace.connectors.file_lines import LineBlocks, first_line, line_ends, raw_lines, text_start


class NdjsonFile:
    """One file with a JSON object per line, plain or gzipped.

    A line that is no JSON object is a broken row (its document is None). Empty lines are no rows.

    Raises:
        ConfigError: the file cannot be read.
    """

    fixed_columns: bool = False
    rows_total: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = text_start(path)
        self.columns = tuple(_document(first_line(path)[0]) or ())

    def chunks(self, place: Place, columns: Collection[str], chunk_bytes: int) -> Iterator[Chunk]:
        offset, line = (place.offset or self._start), place.line
        with LineBlocks(self.path, offset) as lines:
            while not lines.ended:
                data = lines.read(chunk_bytes)
                ends = line_ends(data)
                texts = data.split(b"\n")[: len(ends)]
                filled = np.array([index for index, text in enumerate(texts) if text.strip()], dtype=np.int64)
                if len(filled):
                    yield Chunk(
                        offsets=offset + ends[filled],
                        lines=line + filled + 1,
                        raw=raw_lines(data, ends[filled]),
                        disk_bytes=lines.disk_bytes,
                        documents=[_document(texts[index]) for index in filled.tolist()],
                    )
                offset += len(data)
                line += len(ends)


def _document(text: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
