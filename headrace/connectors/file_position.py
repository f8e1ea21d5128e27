"""How far a replay has come, as it is kept in the log."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from headrace.connectors.file_formats import Place
from headrace.connectors.mapping import Mapping
from headrace.engine.errors import ConfigError


@dataclass(slots=True)
class ReplayPosition:
    """Rows delivered, and where each file goes on.

    Args:
        data_set: fingerprint of the file names and sizes.
        mapping: fingerprint of the mapping.
        places: one per file, in the order of the names.
        rows: count of rows delivered, all files.
        unmapped: of these, rows passed on as raw bytes.
        disordered: of these, rows older than an earlier row of their file.
        time_ms: event time reached, ms; None before the first.
    """

    data_set: str
    mapping: str
    places: list[Place]
    rows: int = 0
    unmapped: int = 0
    disordered: int = 0
    time_ms: int | None = None

    @classmethod
    def start(cls, files: Sequence[Path], mapping: Mapping) -> "ReplayPosition":
        """The position before the first row of these files."""
        listing = orjson.dumps([(file.name, file.stat().st_size) for file in files])
        return cls(_fingerprint(listing), _fingerprint(mapping.model_dump_json().encode()), [Place()] * len(files))

    def dumps(self) -> bytes:
        """The bytes that `resume` reads."""
        return orjson.dumps(self, default=list)

    def resume(self, saved: bytes) -> "ReplayPosition":
        """The saved position, if it belongs to the same files and mapping as this one.

        Raises:
            ConfigError: it does not.
        """
        fields = orjson.loads(saved)
        advice = "to replay from the start, name another folder with --data PATH"
        if fields["data_set"] != self.data_set:
            raise ConfigError(f"this data folder holds a replay of other files (names or sizes differ): {advice}")
        if fields["mapping"] != self.mapping:
            raise ConfigError(f"this data folder holds a replay that was begun with another mapping: {advice}")
        return ReplayPosition(**fields | {"places": [Place(*place) for place in fields["places"]]})


def _fingerprint(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
