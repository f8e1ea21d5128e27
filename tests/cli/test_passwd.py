"""`headrace passwd`, beside the listener that reads its file."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.cli.passwd import passwd
from headrace.connectors.mqtt.passwords import Passwords
from headrace.engine.errors import ConfigError


def run(*arguments: object, text: str = "") -> str:
    """What the command prints."""
    result = CliRunner().invoke(passwd, [str(each) for each in arguments], input=text, catch_exceptions=False)
    return result.stdout


def fits(path: Path, name: str, password: str) -> bool:
    """Whether the listener would let this user in."""
    return asyncio.run(Passwords(path).fits(name, password.encode()))


def test_adding_changing_and_removing(tmp_path: Path) -> None:
    """One user after the other; comments and the others stay, and only the owner reads the file."""
    path = tmp_path / "users"
    run(path, "a", text="one\n")
    path.write_text("# my devices\n" + path.read_text())
    run(path, "b", text="two\n")
    run(path, "a", text="three\n")
    assert (fits(path, "a", "three"), fits(path, "a", "one"), fits(path, "b", "two")) == (True, False, True)
    run("--remove", path, "a")

    assert (fits(path, "a", "three"), fits(path, "b", "two")) == (False, True)
    assert path.read_text().startswith("# my devices\nb:$7$")
    assert path.stat().st_mode & 0o777 == 0o600


def test_generated_passwords(tmp_path: Path) -> None:
    """Many at once; each is printed once."""
    path = tmp_path / "users"
    printed = dict(line.split() for line in run("--generate", path, "a", "b").splitlines())
    assert list(printed) == ["a", "b"]
    assert all(fits(path, name, password) for name, password in printed.items())


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [(("a", "b"), "need --generate"), (("a/b",), "level of a topic"), (("--remove", "x"), "no user x")],
)
def test_mistakes(arguments: tuple[str, ...], mistake: str, tmp_path: Path) -> None:
    """Nothing is written."""
    options, users = [each for each in arguments if each[:2] == "--"], [each for each in arguments if each[:2] != "--"]
    with pytest.raises(ConfigError, match=mistake):
        run(*options, tmp_path / "users", *users, text="x\n")
    assert not (tmp_path / "users").exists()


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    """It is left as it is; every wrong line is named."""
    path = tmp_path / "users"
    path.write_text("hello\nworld:$6$abc$def\n")
    with pytest.raises(ConfigError) as caught:
        run(path, "a", text="x\n")
    assert len(caught.value.mistakes) == 2
    assert path.read_text() == "hello\nworld:$6$abc$def\n"
