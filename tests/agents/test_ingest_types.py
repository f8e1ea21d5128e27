"""What ingest does with the finer points of a device type."""

from typing import Any

import orjson

from headrace.agents.ingest import Ingest, IngestConfig
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, drive
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType

#: 2026-01-18T10:30:00Z.
TIME = 1_768_732_200_000


def ingest(device_type: DeviceType, *payloads: dict[str, Any], config: IngestConfig | None = None) -> Driven:
    """What becomes of messages of one device, appended a second after `TIME`."""
    records = Records(
        [b"d1"] * len(payloads),
        [orjson.dumps(payload) for payload in payloads],
        [TIME + 1000] * len(payloads),
        {topics.DEVICE_TYPE: device_type.name.encode()},
    )
    return drive(Ingest({device_type.name: device_type}, config), records)


def made(**parts: Any) -> DeviceType:
    """A device type named "meter"."""
    return DeviceType.model_validate({"name": "meter", **parts})


def test_null_is_refused_where_a_field_is_not_nullable() -> None:
    """Under its own name and under an alias; absence is no null, and null elsewhere is absence."""
    meter = made(fields={"power": {"nullable": False, "aliases": {"watts": "1"}}, "state": {"type": "text"}})

    driven = ingest(
        meter,
        {"timestamp": TIME, "power": None, "state": "on"},
        {"timestamp": TIME, "watts": None, "state": "on"},
        {"timestamp": TIME + 1, "power": 5, "state": None},
        {"timestamp": TIME + 2, "state": "on"},
    )

    said = "power is null, which its device type does not allow"
    assert driven.dead_letters == [(0, said), (1, said)]
    assert len(driven.sent[topics.READINGS]) == 2
