"""An environment for each peer, made when it is first needed and kept in `.cache` beside this file."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from local_kafka.jars import MissingTool, find_tool

FOLDER = Path(__file__).parent
#: Ignored by Git, removed by `make clean`.
CACHE = FOLDER / ".cache"
JAVA_PROJECT = FOLDER / "kafka_streams"


class SetUpError(Exception):
    """A peer's environment could not be made; the message ends with what the tool said."""


def requirements(peer: str) -> Path:
    """The hash-pinned lock of a Python peer."""
    return FOLDER / "requirements" / f"{peer}.txt"


def pinned(peer: str, package: str) -> str:
    """The version of a package in a peer's lock."""
    for line in requirements(peer).read_text().splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version.split()[0]
    raise SetUpError(f"{requirements(peer)} does not pin {package}")


def python(peer: str) -> Path:
    """The interpreter of a peer's virtual environment; made anew when the lock or this Python changed.

    Raises:
        SetUpError: it could not be made.
    """
    lock = requirements(peer)
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = _cache() / f"{peer}-{key}"
    interpreter, done = place / "bin" / "python", place / "complete"
    if not done.exists():
        print(f"peers: an environment for {peer} is made, once; needs the network", file=sys.stderr, flush=True)
        _run(f"a virtual environment for {peer}", sys.executable, "-m", "venv", "--clear", str(place))
        options = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes")
        _run(f"the packages of {peer}", str(interpreter), "-m", "pip", "install", *options, "-r", str(lock))
        done.touch()
    return interpreter


def java() -> list[str]:
    """The Java command, with the class path of the Kafka Streams program, compiled by Maven when its sources changed.

    Raises:
        SetUpError: Java or Maven is missing, or it could not be compiled.
    """
    sources = sorted(path for path in JAVA_PROJECT.rglob("*") if path.suffix in {".java", ".xml"})
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    place = _cache() / f"kafka-streams-{key}"
    found = place / "classpath.txt"
    try:
        maven, program = find_tool("mvn"), find_tool("java")
    except MissingTool as error:
        raise SetUpError(str(error)) from error
    if not _usable(found):
        print("peers: Maven compiles the Kafka Streams program, once; needs the network", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        goals = ("compile", "dependency:build-classpath", f"-Dbuild.folder={place}", f"-Dmdep.outputFile={found}")
        _run("the Kafka Streams program", maven, "--quiet", "--batch-mode", "--file", f"{JAVA_PROJECT}/pom.xml", *goals)
    return [
        program,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        os.pathsep.join([str(place / "classes"), found.read_text().strip()]),
    ]


def _usable(class_path: Path) -> bool:
    return class_path.exists() and all(Path(jar).exists() for jar in class_path.read_text().strip().split(os.pathsep))


def _cache() -> Path:
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return CACHE


def _run(what: str, *command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetUpError(f"{what} could not be made:\n{(done.stdout + done.stderr)[-3000:]}")
