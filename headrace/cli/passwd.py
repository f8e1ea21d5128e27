"""`headrace passwd`: users of the MQTT listener and their passwords."""

import os
import secrets
import sys
from pathlib import Path

import click

from headrace.connectors.mqtt.access import is_name
from headrace.connectors.mqtt.passwords import Passwords, password_line
from headrace.engine.errors import ConfigError


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("users", nargs=-1, required=True)
@click.option("--generate", is_flag=True, help="Make up the passwords, and print them: one line `user password` each.")
@click.option("--remove", is_flag=True, help="Remove the users.")
def passwd(file: Path, users: tuple[str, ...], generate: bool, remove: bool) -> None:
    """Add USERS to the password FILE of the MQTT listener, change their passwords, or remove them.

    The password is asked for, or read as one line from standard input if that is no terminal. A listener that runs
    notices. The file has the format of Mosquitto's.
    """
    wrong = [
        f"user {name!r}: a name is a level of a topic, without / + # or :"
        for name in users
        if not is_name(name) or ":" in name or not name.isprintable() or name != name.strip()
    ]
    if generate and remove:
        wrong.append("--generate and --remove exclude each other")
    if len(users) > 1 and not generate and not remove:
        wrong.append("several users at once need --generate")
    if wrong:
        raise ConfigError(*wrong)
    lines = _lines(file)
    missing = [name for name in users if name not in lines] if remove else []
    if missing:
        raise ConfigError(*[f"{file} has no user {name}" for name in missing])
    for name in users:
        if remove:
            del lines[name]
            continue
        password = secrets.token_urlsafe(24) if generate else _asked(name)
        lines[name] = password_line(name, password.encode())
        if generate:
            click.echo(f"{name} {password}")
    _write(file, "".join(f"{line}\n" for line in lines.values()))


def _lines(file: Path) -> dict[str, str]:
    """What the file has, by user; comments by themselves. Nothing if there is no file."""
    if not file.exists():
        return {}
    Passwords(file)  # a file that is not one is left alone
    found = {}
    for line in file.read_text().splitlines():
        name = line if line.startswith("#") or not line.strip() else line.partition(":")[0].strip()
        found[name] = line
    return found


def _asked(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"password of {name}", hide_input=True, confirmation_prompt=True))
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigError("no password on standard input")
    return password


def _write(file: Path, text: str) -> None:
    """All at once: a listener never reads half of it. Only the owner can read it, unless it was otherwise before."""
    partial = file.with_name(file.name + ".partial")
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
            out.write(text)
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
