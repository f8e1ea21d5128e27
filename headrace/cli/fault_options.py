"""Options of the simulator: how often what goes wrong, and where the truth about it is written."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from headrace.connectors.fleet_config import MESSAGE_FAULTS, Kind
from headrace.connectors.fleet_episodes import Episode
from headrace.engine.errors import ConfigError
from headrace.schemas.text import near

#: Every kind of fault: of single messages, and of devices for a while.
FAULTS = (*MESSAGE_FAULTS, *(kind.value for kind in Kind))


def fault_shares(options: Iterable[str], mistakes: list[str]) -> dict[str, float]:
    """What `--fault KIND=SHARE` options say; what is wrong with the others is added to `mistakes`.

    >>> fault_shares(["stuck=0.1", "late=0"], [])
    {'stuck': 0.1, 'late': 0.0}
    """
    shares: dict[str, float] = {}
    for option in options:
        kind, _, share = option.partition("=")
        if kind not in FAULTS:
            hint = near(kind, FAULTS) or f"; there are {', '.join(FAULTS)}"
            mistakes.append(f"--fault {option}: there is no {kind!r}{hint}")
            continue
        try:
            shares[kind] = float(share)
        except ValueError:
            mistakes.append(f"--fault {option}: {share!r} is no number; write {kind}=0.1")
    return shares


class TruthFile:
    """Writes episodes to a file as they end, one JSON object on a line.

    Args:
        path: is overwritten; None to write nothing.
    Raises:
        ConfigError: on entering, the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                # Unbuffered: whatever ends the demo, the file has every episode that was over.
                self._file = self._path.open("wb", buffering=0)
            except OSError as error:
                raise ConfigError(f"--truth {self._path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, episode: Episode) -> None:
        """One line."""
        if self._file is not None:
            self._file.write(orjson.dumps(episode, option=orjson.OPT_APPEND_NEWLINE))
