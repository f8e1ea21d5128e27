"""What a body may be."""

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from headrace.connectors.http.problem import HttpProblem

JSON = ("application/json",)
#: Of what devices send on their topics; the topic profile says what it is.
TELEMETRY = (*JSON, "application/senml+json", "application/senml+cbor", "application/cbor", "application/octet-stream")


def media_type(request: web.BaseRequest, known: Sequence[str]) -> str:
    """The media type of a request; the first that is known where it names none.

    A browser must name it: without, a page of another site could post without asking us first (Fetch, CORS protocol).

    Raises:
        HttpProblem: it names another.
    """
    given = (
        request.headers.get("Content-Type", "" if "Origin" in request.headers else known[0])
        .partition(";")[0]
        .strip()
        .lower()
    )
    if given not in known:
        raise HttpProblem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            f"Content-Type {given!r} is not understood here; send {' or '.join(known[:2])}",
            headers={"Accept": ", ".join(known)},
        )
    return given
