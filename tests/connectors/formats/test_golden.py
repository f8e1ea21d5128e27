"""What the documented examples of each format become, byte for byte where it matters."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.connectors.formats import Aside, Message, NotUnpacked, Part
from headrace.connectors.topic_profile import TopicProfile

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def becomes(golden: dict[str, Any]) -> dict[str, Any]:
    """What a message becomes, as the files say it."""
    profile = TopicProfile.model_validate(golden["profile"])
    unpack, found = profile.unpacker(), profile.find(golden["topic"])
    assert unpack is not None
    assert found is not None
    payload = bytes.fromhex(golden["payload_hex"]) if "payload_hex" in golden else orjson.dumps(golden["payload"])
    try:
        made = unpack(Message(golden["topic"].split("/"), found.device_id or "", payload, golden["received"]))
    except NotUnpacked as error:
        return {"refused": error.reason, "device": error.device_id, **numbered(error.sequence)}
    if isinstance(made, Aside):
        return {"event": made.event, "device": made.device_id}
    return {"records": [record(part) for part in made]}


def record(part: Part) -> dict[str, Any]:
    """A part as the files say it; the order of names matters."""
    return {"device": part.device_id, "payload": orjson.loads(part.payload), **numbered(part.sequence)}


def numbered(sequence: bytes | None) -> dict[str, str]:
    """The sequence number, where there is one."""
    return {} if sequence is None else {"sequence": sequence.decode()}


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_example_becomes_this(file: Path) -> None:
    """Records, events and refusals are those of the file."""
    golden = orjson.loads(file.read_bytes())

    assert orjson.dumps(becomes(golden)) == orjson.dumps(golden["becomes"])


def test_every_format_has_examples() -> None:
    """None is without a golden file."""
    formats = {orjson.loads(file.read_bytes())["profile"]["format"] for file in GOLDEN}

    assert formats == {"chirpstack", "envelope", "senml-cbor", "senml-json", "thingsboard", "thingsboard-gateway"}
