"""The report that benchmarks go into: written anew after each figure, so that hours of measuring are not lost."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.cli.bench_compare import FORMAT, load_report
from headrace.cli.bench_figures import Form
from headrace.cli.bench_machine import commit, load, machine, versions
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError, HeadraceError


class Report:
    """A report, and the file that it is in.

    Args:
        path: of the file; None or `-` for none.
        clock: for when a figure was taken.
        handicap: of all runs.
        order: names of all figures there are, in the order of the report.
        add: keep what the file says of other figures.
    Raises:
        ConfigError: the file cannot be added to.
    """

    def __init__(self, path: Path | None, clock: Clock, handicap: float, order: Sequence[str], *, add: bool) -> None:
        self._path = None if path is None or str(path) == "-" else path
        self._clock = clock
        self._order = order
        self._load = load()
        #: See `headrace bench --json`.
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "handicap": handicap,
            "machine": machine(),
            "versions": versions(),
            "listed": list(order),
            "figures": [],
        }
        if add:
            self._go_on()

    def take(self, result: Mapping[str, Any], form: Form) -> None:
        """A figure was measured; it takes the place of what was said of it before."""
        taken = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stamped = {**result, "taken": taken, "form": form, "load_before": self._load, **commit()}
        others = [each for each in self.content["figures"] if each["name"] != result["name"]]
        self.content["figures"] = sorted([*others, stamped], key=lambda each: self._order.index(each["name"]))
        self._write()

    def take_profile(self, found: Mapping[str, Any]) -> None:
        """See `headrace.cli.bench_profile.profile`."""
        self.content["profile"] = found
        self._write()

    def _go_on(self) -> None:
        if self._path is None:
            raise ConfigError("--add needs the file to add to: --json FILE")
        if not self._path.exists():
            return
        before = load_report(self._path)
        for part in ("machine", "versions", "handicap"):
            if before[part] != self.content[part]:
                raise ConfigError(
                    f"{self._path} cannot be added to: {part} {before[part]} there, {self.content[part]} now; "
                    "without --add it is made anew"
                )
        known = [each for each in before["figures"] if each["name"] in self._order]
        self.content = {**before, "listed": list(self._order), "figures": known}

    def _write(self) -> None:
        if self._path is None:
            return
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        try:
            self._replace(self._path, text)
        except OSError as error:
            raise HeadraceError(f"{self._path} cannot be written: {error.strerror}") from error

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        if path.exists() and not path.is_file():
            path.write_text(text)  # a pipe or a device, /dev/null for one, is no file to put another in place of
            return
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(text)
        beside.replace(path)
