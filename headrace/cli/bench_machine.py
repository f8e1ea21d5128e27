"""Where and of what a benchmark was taken: machine, versions, commit."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import headrace
from headrace.connectors.postgres_place import installed_programs
from headrace.engine.errors import ConfigError

ROOT = Path(headrace.__file__).parent.parent
PACKAGES = ("faust-streaming", "aiokafka", "asyncpg", "aiomqtt", "msgspec", "numpy", "orjson", "polars", "pydantic")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, kernel; None for what the system does not tell."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
    }


def find_program(name: str) -> str | None:
    """Its path, or None. Debian keeps servers where few users' PATH leads."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def load() -> float:
    """Average number of threads that ran or waited for a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str | None:
    path = Path("/proc/cpuinfo")
    if path.exists():
        found = re.search(r"^model name\s*: (.*)$", path.read_text(), re.MULTILINE)
        return found[1] if found else None
    return platform.processor() or None


def versions() -> dict[str, str]:
    """Of Python, headrace, what it stands on, and the servers that there are."""
    found = {"python": platform.python_version(), "headrace": headrace.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    servers = {
        "java": (["java", "-version"], r'"(.+?)"'),
        "postgresql": ([_postgres(), "--version"], r"\(PostgreSQL\) (\S+)"),
        "mosquitto": (["mosquitto", "-h"], r"mosquitto version (\S+)"),
        "kafka": (
            [sys.executable, "-c", "from local_kafka.cluster import DEFAULT_VERSION as v; print(v)"],
            r"(\d\S*)",
        ),
    }
    for name, (command, pattern) in servers.items():
        if path := find_program(command[0]):
            text = _output([path, *command[1:]], ROOT / "scripts")
            if match := re.search(pattern, text):
                found[name] = match[1]
    return found


def _postgres() -> str:
    try:
        return str(installed_programs() / "postgres")
    except ConfigError:
        return "postgres"


def commit() -> dict[str, Any]:
    """Commit of the clone, and whether files differ from it other than those that benchmarks write themselves."""
    name = _output(["git", "rev-parse", "HEAD"], ROOT).strip()
    changed = _output(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", ":(exclude)docs/performance*"], ROOT
    ).strip()
    return {"commit": name if re.fullmatch(r"[0-9a-f]{40}", name) else None, "dirty": bool(changed)}


def _output(command: list[str], folder: Path) -> str:
    if not folder.exists():
        return ""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
