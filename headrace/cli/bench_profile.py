"""Where the time of the hot path goes: py-spy's samples of a benchmark, added up by part and by function."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headrace.cli.bench_figures import FOLDER
from headrace.engine.errors import ConfigError, HeadraceError

#: What is profiled: the whole path, from the log to PostgreSQL.
SCRIPT = ("pipeline.py", "--variant", "headrace", "--messages")
MESSAGES = {"short": 60_000, "full": 300_000}
RATE = 200
#: Lines of each table.
MOST = 15
MOST_SECONDS = 900
#: Samples with one of these on the stack are of the start, or of the benchmark itself.
SETUP = re.compile(r"importlib|runpy|\(load\.py|\bmeasure \(pipeline\.py(?!.*\bPipeline\.run \()")
#: A thread in one of these waits, though the system says that it runs.
WAITS = re.compile(r";(_worker|Writer\._run|wait|\w*\.?select|\w*\.?_do_waitpid) \([^;]*$")
FRAME = re.compile(r"^(?P<function>.*?) \((?P<file>.*?)(?::\d+)?\)$")


def py_spy() -> str:
    """Where it is.

    Raises:
        ConfigError: nowhere.
    """
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ConfigError("--profile needs py-spy, which is for development: make setup")
    return found


def profile(messages: int) -> dict[str, Any]:
    """Shares of the samples of a run of the whole path, and the command that took them.

    Raises:
        ConfigError: there is no py-spy.
        HeadraceError: it failed; without root it may not look into other processes on some systems.
    """
    options = ["record", "--format", "raw", "--rate", str(RATE)]
    script, *arguments = [*SCRIPT, str(messages)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "profile.txt"
        command = [py_spy(), *options, "--output", str(output), "--", sys.executable, str(FOLDER / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
        if done.returncode or not output.exists():
            raise HeadraceError(f"py-spy failed:\n{done.stderr[-2000:]}")
        shown = " ".join(["py-spy", *options, "--output profile.txt -- python", f"benchmarks/{script}", *arguments])
        return {"command": shown, **shares(output.read_text().splitlines())}


def shares(lines: Iterable[str]) -> dict[str, Any]:
    """Samples by part (the innermost function of headrace on the stack, by its file) and by function.

    Args:
        lines: `outer (file:line);inner (file:line) count`, of all threads.
    """
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not stack or SETUP.search(stack) or WAITS.search(stack):
            continue
        frames = [found for found in map(FRAME.match, stack.split(";")) if found]
        if not frames:
            continue
        files = [_short(found["file"]) for found in frames]
        ours = [file for file in files if file.startswith("headrace/")]
        parts[ours[-1] if ours else files[-1]] += int(count)
        functions[f"{frames[-1]['function']} ({files[-1]})"] += int(count)
    total = sum(parts.values())
    return {
        "samples": total,
        "parts": [[name, round(count / total, 4)] for name, count in parts.most_common(MOST)],
        "functions": [[name, round(count / total, 4)] for name, count in functions.most_common(MOST)],
    }


def _short(file: str) -> str:
    """Without what differs between machines."""
    for mark in ("site-packages/", "headrace/"):
        _, found, rest = file.rpartition(mark) if mark == "site-packages/" else file.partition(mark)
        if found:
            return rest if mark == "site-packages/" else f"{mark}{rest}"
    return file.rsplit("lib/python", 1)[-1].partition("/")[2] if "lib/python" in file else file
