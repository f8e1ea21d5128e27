"""Who may post, and for which devices."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from headrace.connectors.http.problem import HttpProblem
from headrace.connectors.http.settings import ApiKey

#: Header of a key, where it does not come as `Authorization: Bearer …`.
HEADER = "X-API-Key"
#: Device ids remembered per client; at the limit the memory starts over.
MAX_REMEMBERED = 100_000


class Client:
    """Somebody who may post.

    Args:
        name: empty where nobody is asked who they are.
        devices: patterns; see `ApiKey`.
    """

    def __init__(self, name: str, devices: Sequence[str]) -> None:
        self.name = name
        self.is_for_all = "*" in devices
        parts = (".*".join(map(re.escape, each.split("*"))) for each in devices)
        self._pattern = re.compile("|".join(f"(?:{each})" for each in parts).encode(), re.DOTALL)
        self._known: dict[bytes, bool] = {}

    def may(self, device_id: bytes) -> bool:
        """Whether it may post for a device."""
        if self.is_for_all:
            return True
        known = self._known.get(device_id)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[device_id] = self._pattern.fullmatch(device_id) is not None
        return known


class Access:
    """Finds out who a request is from.

    Args:
        keys: without any, everybody is let in.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        # Digests are of one length, so that comparing them tells nothing of a key, not even how long it is.
        self._clients = [(_digest(each.key.get_secret_value()), Client(each.name, each.devices)) for each in keys]
        self._anybody = None if keys else Client("", ("*",))

    def client(self, request: web.BaseRequest) -> Client:
        """Who it is from.

        Raises:
            HttpProblem: nobody we know.
        """
        if self._anybody is not None:
            return self._anybody
        given = request.headers.get(HEADER)
        if given is None:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else ""
        digest, found = _digest(given), None
        for known, client in self._clients:  # all of them, whichever it is: the time must not tell
            if hmac.compare_digest(known, digest):
                found = client
        if found is None:
            said = f"send a key that is known, as {HEADER} or Authorization: Bearer"
            raise HttpProblem(
                HTTPStatus.UNAUTHORIZED, "unauthorized", said, headers={"WWW-Authenticate": 'Bearer realm="headrace"'}
            )
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
