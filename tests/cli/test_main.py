"""The command line as a user meets it: exit codes and messages."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def headrace(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli.main", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)


def test_every_mistake_is_named_at_once_and_exits_2(tmp_path: Path) -> None:
    """Options, file and environment are all checked before anything starts."""
    config = tmp_path / "bad.toml"
    config.write_text('log_level = "loud"\n[rollup]\ngrace = "soon"\nfoo = 1\n[nope]\n')

    done = headrace("demo", "--devices", "0", "--speed", "0", "--config", str(config), HEADRACE_ROLUP__GRACE="1")

    assert done.returncode == 2
    assert not done.stdout
    lines = done.stderr.splitlines()
    for part in ("--speed", "devices", "log_level", "rollup.grace", "rollup.foo", "nope", "HEADRACE_ROLUP__GRACE"):
        assert sum(part in line for line in lines) == 1, part


def test_secrets_are_followed_and_never_printed(tmp_path: Path) -> None:
    """A reference to a variable that is not there is a mistake; the value of one that is, stays out of messages."""
    missing = headrace("demo", HEADRACE_DATABASE__DSN="env:NOT_THERE", HEADRACE_ROLLUP__GRACE="x")

    assert missing.returncode == 2
    assert "NOT_THERE is not set" in missing.stderr

    secret = headrace(
        "demo", HEADRACE_DATABASE__DSN="env:DSN", DSN="postgresql://u:hunter2@h/d", HEADRACE_ROLLUP__GRACE="x"
    )
    assert secret.returncode == 2
    assert "hunter2" not in secret.stderr


def test_a_file_that_is_not_there_says_so() -> None:
    """The configuration file and the data to replay are looked for first."""
    assert "cannot be read" in headrace("demo", "--config", "nowhere.toml").stderr
    assert headrace("replay", "nowhere.csv").returncode == 2


def test_unknown_command_and_option_exit_2() -> None:
    """Usage mistakes look like those of any other command."""
    assert headrace("nosuch").returncode == 2
    assert headrace("demo", "--nosuch").returncode == 2


@pytest.mark.parametrize("command", ["demo", "replay", "bench"])
def test_help_names_every_option(command: str) -> None:
    """`--help` works without starting anything."""
    done = headrace(command, "--help")

    assert done.returncode == 0
    assert "--json" in done.stdout


def test_malformed_variable_is_a_mistake_like_any_other() -> None:
    """A variable that is not what its setting needs is named, beside the others."""
    done = headrace("demo", HEADRACE_ROLLUP__WINDOWS="[60", HEADRACE_FOO__BAR="1")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "rollup" in done.stderr
    assert "HEADRACE_FOO__BAR" in done.stderr


def test_a_module_cannot_pass_over_the_signal_that_comes_while_it_is_imported(tmp_path: Path) -> None:
    """Modules that try an import go on after whatever it raises: the signal would be lost."""
    (tmp_path / "careless.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n    done = True\n"
        "except BaseException:\n    pass\nprint('went on')\n"
    )
    script = "from headrace.cli import main; main.COMMANDS['demo'] = 'careless'; main.main()"

    ended = subprocess.run([sys.executable, "-c", script, "demo"], cwd=tmp_path, capture_output=True, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_quietly(number: signal.Signals, tmp_path: Path) -> None:
    """While modules are imported there is nothing to finish: exit 0, no traceback."""
    command = [sys.executable, "-X", "importtime", "-m", "headrace.cli.main", "demo", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "faust" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=300)

    assert process.returncode == 0
    assert "Traceback" not in stderr
