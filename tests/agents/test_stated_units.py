"""Payloads that state units of their values."""

from typing import Any

import orjson
import pytest

from headrace.agents.ingest import Ingest
from headrace.engine.records import Header, Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types

T0 = 1_704_067_200_000


def ingested(*documents: dict[str, Any]) -> Driven:
    """What ingest makes of payloads of environmental devices."""
    timed = [{"timestamp": T0 + place, **each} for place, each in enumerate(documents)]
    payloads: list[bytes | None] = [orjson.dumps(each) for each in timed]
    headers: dict[str, Header] = {topics.DEVICE_TYPE: b"environmental"}
    return drive(Ingest(load_device_types()), Records([b"d"] * len(payloads), payloads, [T0] * len(payloads), headers))


def reading(driven: Driven) -> dict[str, Any]:
    """The only reading."""
    (found,) = driven.sent[topics.READINGS]
    document: dict[str, Any] = orjson.loads(found.value or b"")
    return document


def test_a_value_is_converted_from_the_unit_that_is_stated() -> None:
    """By its name or an alias; what states nothing stays in the unit of the device type."""
    found = reading(ingested({"temp": 50, "co2": 400, "battery": 7, "$units": {"temp": "degF", "co2": "ppm"}}))

    assert found["measures"] == {"temperature": pytest.approx(10), "co2": 400, "battery": 7}
    assert "extra" not in found


def test_of_what_nobody_described_the_unit_is_kept() -> None:
    """Beside the value, so that nothing is lost."""
    found = reading(ingested({"temperature": 1, "odour": 7, "label": "x", "$units": {"odour": "ou", "gone": "m"}}))

    assert found["extra"] == {"odour": {"value": 7, "unit": "ou"}, "label": "x"}


def test_what_stated_nothing_before_goes_on() -> None:
    """Messages with and without units in one batch are read each for itself."""
    driven = ingested({"temperature": 1}, {"temperature": 50, "$units": {"temperature": "degF"}}, {"temperature": 3})

    values = [orjson.loads(each.value or b"")["measures"]["temperature"] for each in driven.sent[topics.READINGS]]
    assert values == [1, pytest.approx(10), 3]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"temperature": 1, "$units": {"temperature": "hPa"}}, "unit of temperature is 'hPa', which is none of K, "),
        ({"temperature": 1, "$units": "degF"}, "$units is a text, not an object"),
        ({"temperature": 1, "$units": {"temperature": 7}}, "$units: that of temperature is a number, not a text"),
        ({"temperature": 1, "temp": 2, "$units": {"temp": "degF"}}, "temperature is given twice"),
        ({"temperature": 1e308, "$units": {"temperature": "mK"}}, "unit of temperature is 'mK'"),
        ({"temperature": True, "$units": {"temperature": "degF"}}, "temperature is a boolean (true), not a number"),
    ],
)
def test_what_is_refused(document: dict[str, Any], reason: str) -> None:
    """With a reason that says what is wrong."""
    driven = ingested(document)

    ((_, said),) = driven.dead_letters
    assert said.startswith(reason)
