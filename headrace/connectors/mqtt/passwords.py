"""User names with hashed passwords, in the format of Mosquitto 2's password file; `mosquitto_passwd` writes it too."""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from headrace.engine.errors import ConfigError

#: PBKDF2-HMAC-SHA512 in Mosquitto's numbering.
SCHEME = "7"
#: As `mosquitto_passwd` has it: a device's password is long and random, and thousands connect at once.
ITERATIONS = 101
#: From here on a check goes to a thread: it would hold up the event loop for over a millisecond.
SLOW_ITERATIONS = 2_000


class _Hash(NamedTuple):
    iterations: int
    salt: bytes
    digest: bytes

    def fits(self, password: bytes) -> bool:
        made = hashlib.pbkdf2_hmac("sha512", password, self.salt, self.iterations)
        return hmac.compare_digest(made, self.digest)


#: Takes as long to check as a real one: whether a user name exists does not show.
_NOBODY = _Hash(ITERATIONS, bytes(12), bytes(64))


class Passwords:
    """A password file, read again when it has changed.

    Args:
        path: lines `user:$7$iterations$salt$digest`.
    Raises:
        ConfigError: it cannot be read; every line that is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stat()
        self._users = _read(path)

    async def fits(self, username: str, password: bytes) -> bool:
        """Whether this is the user's password."""
        self._refresh()
        found = self._users.get(username)
        kept = found or _NOBODY
        if kept.iterations < SLOW_ITERATIONS:
            fits = kept.fits(password)
        else:
            fits = await asyncio.to_thread(kept.fits, password)
        return fits and found is not None

    def _refresh(self) -> None:
        """A file that is being written, or is wrong, changes nothing: the users as they were stay."""
        stamp = self._stat()
        if stamp != self._stamp and stamp is not None:
            try:
                self._users = _read(self._path)
            except ConfigError:
                return
            self._stamp = stamp

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def password_line(username: str, password: bytes) -> str:
    """A line of a password file."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, ITERATIONS)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"{username}:${SCHEME}${ITERATIONS}${encoded[0]}${encoded[1]}"


def _read(path: Path) -> Mapping[str, _Hash]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"listener.passwords: {path} cannot be read: {error}") from error
    users, wrong = {}, []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                name, kept = _parsed(line)
            except ValueError as error:
                wrong.append(f"listener.passwords: {path} line {number}: {error}")
            else:
                users[name] = kept
    if wrong:
        raise ConfigError(*wrong)
    return users


def _parsed(line: str) -> tuple[str, _Hash]:
    name, _, rest = line.strip().partition(":")
    parts = rest.split("$")
    if not name or len(parts) != 5 or parts[1] != SCHEME or not parts[2].isdigit() or int(parts[2]) < 1:
        raise ValueError(
            "not `user:$7$iterations$salt$digest`; `headrace passwd` and `mosquitto_passwd` write such lines"
        )
    salt, digest = (base64.b64decode(part, validate=True) for part in parts[3:])
    return name, _Hash(int(parts[2]), salt, digest)
