"""How long a client wants to wait."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from headrace.connectors.http.prefer import wish


@pytest.mark.parametrize(
    ("given", "seconds", "applied"),
    [
        ([], 2.0, ""),
        (["respond-async"], 0.0, "respond-async"),
        (["wait=5"], 5.0, "wait=5"),
        (['wait="5"'], 5.0, "wait=5"),
        (["respond-async, wait=5"], 5.0, "wait=5"),
        (["return=minimal", "Wait = 7; foo=bar"], 7.0, "wait=7"),
        (["wait=999999"], 30.0, "wait=30"),
        (["wait=0"], 0.0, "wait=0"),
        (["wait=5, wait=6"], 5.0, "wait=5"),
        (["wait=-1"], 2.0, ""),
        (["wait=soon"], 2.0, ""),
        (["wait=" + "9" * 50], 2.0, ""),
        (["wait=\u0665"], 2.0, ""),
        ([",;=,", ""], 2.0, ""),
    ],
)
def test_wishes(given: list[str], seconds: float, applied: str) -> None:
    """What can be granted is, up to the most, and said; all else is as if nothing was asked for."""
    headers = CIMultiDict([("Prefer", each) for each in given])
    found = wish(make_mocked_request("POST", "/", headers=headers), 2.0, 30.0)

    assert (found.seconds, found.applied) == (seconds, applied)
    assert found.headers == ({"Preference-Applied": applied} if applied else {})
