"""How long a client wants to wait: `Prefer: respond-async` and `Prefer: wait=N` (RFC 7240)."""

from typing import NamedTuple

from aiohttp import web


class Wish(NamedTuple):
    """What a client prefers.

    Args:
        seconds: to wait for verdicts.
        applied: what of its wishes is granted, for `Preference-Applied`; empty if it has none that we know.
    """

    seconds: float
    applied: str

    @property
    def is_asked(self) -> bool:
        """Whether the client itself asked to wait."""
        return bool(self.applied)

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def wish(request: web.BaseRequest, default: float, most: float) -> Wish:
    """What a request asks for. What cannot be understood is ignored, as the standard wants it.

    Args:
        default: seconds to wait for who asks for nothing.
        most: seconds that may be asked for.
    """
    preferences: dict[str, str] = {}
    for each in ",".join(request.headers.getall("Prefer", [])).split(","):
        name, _, value = each.partition(";")[0].partition("=")
        preferences.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = preferences.get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 10:
        seconds = int(min(int(wait), most))
        return Wish(seconds, f"wait={seconds}")
    if "respond-async" in preferences:
        return Wish(0.0, "respond-async")
    return Wish(default, "")
