"""Sparkplug messages on their own, as dead letters are sent back."""

from pathlib import Path

import orjson
import pytest

from headrace.connectors.formats import Message
from headrace.connectors.formats.parts import Aside, NotUnpacked
from headrace.connectors.topic_profile import TopicProfile

GOLDEN = Path(__file__).parent / "golden"
PROFILE = TopicProfile(name="plant", topic="spBv1.0/#", device_type="machine", format="sparkplug")


def unpacked(topic: str, name: str) -> object:
    """What becomes of a golden file on a topic."""
    unpack = PROFILE.unpacker()
    assert unpack is not None
    return unpack(Message(topic.split("/"), "", (GOLDEN / f"{name}.bin").read_bytes(), 1_750_000_000_000))


def test_a_birth_explains_itself() -> None:
    """It becomes the records that it is in the order of things."""
    found = unpacked("spBv1.0/plant/DBIRTH/press/motor", "dbirth")

    assert isinstance(found, list)
    assert [part.device_id for part in found] == ["plant/press/motor"]
    assert [orjson.loads(part.payload) for part in found] == orjson.loads((GOLDEN / "dbirth.json").read_bytes())


def test_data_by_alias_do_not() -> None:
    """The reason names what is not known, and the device is."""
    with pytest.raises(NotUnpacked, match="alias 102") as caught:
        unpacked("spBv1.0/plant/DDATA/press/motor", "ddata")

    assert caught.value.device_id == "plant/press/motor"


@pytest.mark.parametrize(
    ("topic", "name", "event"),
    [
        ("spBv1.0/plant/NDEATH/press", "ndeath", Aside("NDEATH", "plant/press")),
        ("spBv1.0/plant/NCMD/press", "ncmd", Aside("Sparkplug command or state")),
    ],
)
def test_what_is_no_reading(topic: str, name: str, event: Aside) -> None:
    """Deaths and commands are events."""
    assert unpacked(topic, name) == event


def test_another_topic() -> None:
    """It is refused."""
    with pytest.raises(NotUnpacked, match="no topic of Sparkplug B"):
        unpacked("spBv1.0/plant", "ddata")
