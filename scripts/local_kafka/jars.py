"""What brokers run on: programs, and the jars that Maven resolves from the pinned POM beside this file."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

POM = Path(__file__).parent / "pom.xml"
#: What earlier runs worked out. Ignored by Git, removed by `make clean`.
CACHE = Path(__file__).parent / "target"
#: Programs that a cluster needs (Java 17 or newer), and the Debian package that brings each.
TOOLS = {"java": "default-jre-headless", "mvn": "maven", "openssl": "openssl"}


class MissingTool(Exception):
    """A program or the jars that the cluster needs are missing; the message says what to do."""


def missing_tools() -> dict[str, str]:
    """The programs of `TOOLS` that are not on the PATH, each with its package."""
    return {name: package for name, package in TOOLS.items() if shutil.which(name) is None}


def find_tool(name: str) -> str:
    """Path of one of `TOOLS`.

    Raises:
        MissingTool: it is not on the PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingTool(f"{name} is missing; apt-get install {TOOLS[name]}")
    return path


def class_path(version: str) -> str:
    """Class path of a broker of this Kafka version. The first call downloads 45 MB; later ones need no Maven.

    Raises:
        MissingTool: no Maven, or it could not resolve the jars; the message ends with what it said.
    """
    key = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    cached = CACHE / f"classpath-{version}-{key}.txt"
    if cached.exists():
        found = cached.read_text()
        if all(Path(jar).exists() for jar in found.split(os.pathsep)):
            return found
    found = _resolve(version)
    with tempfile.NamedTemporaryFile("w") as whole:
        whole.write(found)
        whole.flush()
        keep(Path(whole.name), cached)
    return found


def class_archive(java: str, version: str, jars: str) -> Path:
    """Where the class-data archive for this Java, Kafka version and class path belongs; others cannot use it."""
    binary = Path(java).resolve()
    key = hashlib.sha256(f"{binary} {binary.stat().st_mtime_ns} {jars}".encode()).hexdigest()[:12]
    return CACHE / f"classes-{version}-{key}.jsa"


def keep(source: Path, target: Path) -> None:
    """Copy a file into `CACHE`; whoever reads at the same time, or writes the same, sees a whole file."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _resolve(version: str) -> str:
    maven = find_tool("mvn")
    print(f"local_kafka: Maven resolves the jars of Kafka {version} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "classpath.txt")
        goal = ["dependency:build-classpath", f"-Dkafka.version={version}", f"-Dmdep.outputFile={output}"]
        run = subprocess.run(
            [maven, "--quiet", "--batch-mode", "--file", str(POM), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if run.returncode != 0 or not output.exists():
            raise MissingTool(f"Maven could not resolve the jars of Kafka {version}:\n{run.stdout[-2000:]}")
        return output.read_text().strip()
