"""Which topics a profile takes."""

import pytest
from pydantic import ValidationError

from headrace.connectors.topic_profile import TopicProfile, TopicRoutes


def profile(topic_filter: str, name: str = "standard") -> TopicProfile:
    """A profile with this filter."""
    return TopicProfile(name=name, topic_filter=topic_filter, device_type="environmental")


@pytest.mark.parametrize(
    ("topic_filter", "topic", "device_id"),
    [
        ("dt/devices/+/telemetry", "dt/devices/roof-7/telemetry", "roof-7"),
        ("dt/devices/+/telemetry", "dt/devices/dach-süd/telemetry", "dach-süd"),
        ("dt/devices/+/telemetry", "dt/devices/roof-7/status", None),
        ("dt/devices/+/telemetry", "dt/devices/roof-7/telemetry/x", None),
        ("dt/devices/+/telemetry", "dt/devices/roof-7", None),
        ("+/up/+", "gate-1/up/5", "gate-1"),
        ("site/+/#", "site/gate-1/a/b", "gate-1"),
        ("site/+/#", "site/gate-1", "gate-1"),
        ("site/+/#", "site", None),
    ],
)
def test_the_first_plus_is_the_device(topic_filter: str, topic: str, device_id: str | None) -> None:
    """Topics match as MQTT says, and the first `+` level names the device."""
    assert profile(topic_filter).device_id(topic) == device_id


@pytest.mark.parametrize("topic", [b"dt/devices//telemetry", b"dt/devices/\xff/telemetry", b"other"])
def test_topics_without_a_usable_device_id_have_no_route(topic: bytes) -> None:
    """An empty device id, bytes that are not UTF-8 and other topics lead nowhere, every time."""
    routes = TopicRoutes([profile("dt/devices/+/telemetry")])

    assert routes.find(topic) is None
    assert routes.find(topic) is None


@pytest.mark.parametrize("topic_filter", ["dt/devices/telemetry", "dt/a+/+", "dt/+/#/x", "dt/+/x#"])
def test_wrong_filters_are_refused(topic_filter: str) -> None:
    """A filter must be one that MQTT allows, and say where the device id is."""
    with pytest.raises(ValidationError):
        profile(topic_filter)


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [
        ("dt/devices/+/telemetry", "dt/devices/+/status", False),
        ("dt/devices/+/telemetry", "dt/+/roof/telemetry", True),
        ("dt/devices/+/telemetry", "dt/+/#", True),
        ("dt/+/#", "dt/+", True),
        ("dt/+/a/b", "dt/+/a", False),
        ("dt/+/a/#", "dt/+", False),
    ],
)
def test_overlap_is_found(one: str, two: str, overlap: bool) -> None:
    """Two profiles overlap exactly when some topic is of both; the order does not matter."""
    assert profile(one).overlaps(profile(two)) is overlap
    assert profile(two).overlaps(profile(one)) is overlap
