"""The jars of a Kafka broker, resolved by Maven from the pinned POM beside this file."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
#: Class paths that were resolved before. Ignored by Git, removed by `make clean`.
CACHE = HERE / "target"


#: Programs that a cluster needs, and the Debian package that brings each.
TOOLS = {"java": "openjdk-17-jre-headless", "mvn": "maven", "openssl": "openssl"}


class MissingTool(Exception):
    """A program or the jars that the cluster needs are missing; the message says what to install."""


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
    """Class path of a broker of this Kafka version. The first call downloads about 60 MB, later ones need no Maven.

    Raises:
        MissingTool: no Maven, or Maven failed; the message ends with what it said.
    """
    key = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    cached = CACHE / f"classpath-{version}-{key}.txt"
    if cached.exists():
        found = cached.read_text()
        if all(Path(jar).exists() for jar in found.split(os.pathsep)):
            return found
    found = _resolve(version)
    _write_whole(cached, found)
    return found


def _resolve(version: str) -> str:
    maven = find_tool("mvn")
    print(f"local_kafka: resolving the jars of Kafka {version} with Maven ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "classpath.txt")
        goal = ["dependency:build-classpath", f"-Dkafka.version={version}", f"-Dmdep.outputFile={output}"]
        run = subprocess.run(
            [maven, "-q", "-B", "-f", str(POM), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise MissingTool(f"Maven could not resolve the jars of Kafka {version}:\n{run.stdout[-2000:]}")
        return output.read_text().strip()


def _write_whole(path: Path, text: str) -> None:
    """Two test runs may do this at once: each writes a file of its own and renames it."""
    path.parent.mkdir(exist_ok=True)
    (path.parent / ".gitignore").write_text("*\n")
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
