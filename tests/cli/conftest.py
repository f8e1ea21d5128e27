"""Running commands: in this process where that is enough, it saves the seconds that imports take."""

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import structlog
from click.testing import CliRunner

from headrace.cli.main import cli
from headrace.engine.errors import ConfigError, HeadraceError


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: bytes
    stderr: str


#: Runs `headrace` with arguments; fails the test if the exit code is not the one expected.
Headrace = Callable[..., Done]


def in_process(*arguments: object, code: int = 0) -> Done:
    """Run a command here, with logging as it was afterwards. Errors become exit codes as `main` makes them."""
    handlers, level, structured = logging.root.handlers[:], logging.root.level, structlog.get_config()
    try:
        result = CliRunner().invoke(cli, [str(each) for each in arguments], standalone_mode=False)
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
        structlog.configure(**structured)
    error, stderr, found = result.exception, result.stderr, result.exit_code
    if isinstance(error, HeadraceError):
        found, stderr = (2, "\n".join(error.mistakes)) if isinstance(error, ConfigError) else (1, str(error))
    elif error is not None and not isinstance(error, SystemExit):
        raise error
    assert found == code, stderr
    return Done(found, result.stdout_bytes, stderr)


def in_subprocess(*arguments: object, code: int = 0) -> Done:
    """Run a command as a user does."""
    command = [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr.decode()
    return Done(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def headrace() -> Headrace:
    """Runs a command in this process; not inside a running loop."""
    return in_process


@pytest.fixture
def headrace_process() -> Headrace:
    """Runs a command in a process of its own."""
    return in_subprocess
