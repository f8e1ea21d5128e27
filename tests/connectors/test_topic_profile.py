"""Which topics a profile takes, and what it says of them."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from headrace.connectors.topic_profile import SHIPPED, Found, TopicProfile, TopicProfiles, check_device_types
from headrace.engine.config import mistakes
from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

TYPES = load_device_types()


def profile(topic: str, **more: Any) -> TopicProfile:
    """A profile of this topic."""
    return TopicProfile(**{"name": "standard", "topic": topic, "device_type": "environmental"} | more)


@pytest.mark.parametrize(
    ("topic", "given", "device_id"),
    [
        ("dt/devices/{device}/telemetry", "dt/devices/roof-7/telemetry", "roof-7"),
        ("dt/devices/{device}/telemetry", "dt/devices/dach-süd/telemetry", "dach-süd"),
        ("dt/devices/{device}/telemetry", "dt/devices/roof-7/status", None),
        ("dt/devices/{device}/telemetry", "dt/devices/roof-7/telemetry/x", None),
        ("dt/devices/{device}/telemetry", "dt/devices/roof-7", None),
        ("dt/devices/{device}/telemetry", "dt/devices//telemetry", None),
        ("{device}/up/+", "gate-1/up/5", "gate-1"),
        ("+/up/{device}", "5/up/gate-1", "gate-1"),
        ("+/up/{device}", "/up/gate-1", "gate-1"),
        ("site/{device}/#", "site/gate-1/a/b", "gate-1"),
        ("site/{device}/#", "site/gate-1", "gate-1"),
        ("site/{device}/#", "site", None),
        ("{device}/broker/#", "$SYS/broker/load", None),
        ("$SYS/{device}/#", "$SYS/broker/load", "broker"),
    ],
)
def test_the_place_of_the_device(topic: str, given: str, device_id: str | None) -> None:
    """Topics match as MQTT says, and the level `{device}` names the device."""
    found = profile(topic).find(given)

    assert (found and found.device_id) == device_id


def test_the_payload_names_the_device() -> None:
    """A topic without `{device}` is of the profile, and says nothing of the device."""
    assert SHIPPED[1].find("iot/data") == Found(None, "collector")
    assert SHIPPED[1].find("iot/data/x") is None


def test_the_topic_names_the_device_type() -> None:
    """Only the types that are listed may stand there: what devices make up must not fill the ledger."""
    typed = profile("plant/{type}/{device}", device_type="", device_types=["tilt", "meter"])

    assert typed.topic_filter == "plant/+/+"
    assert typed.find("plant/meter/m-1") == Found("m-1", "meter")
    assert typed.find("plant/toaster/m-1") is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"topic": "dt/devices/telemetry"}, ["put {device} into topic, or name the payload's field"]),
        ({"topic": "dt/a{device}/+"}, ["a{device}: +, {device} and {type} must be a level of their own"]),
        ({"topic": "dt/a+/{device}"}, ["a+: +, {device} and {type} must be a level of their own"]),
        ({"topic": "dt/{device}/#/x"}, ["`#` must be the last level"]),
        ({"topic": "dt/{device}/x#"}, ["`#` must be the last level"]),
        ({"topic": "dt/{id}/x"}, ["{id}: there are only {device} and {type}"]),
        ({"topic": "{device}/{device}"}, ["{device} stands there twice"]),
        ({"topic": "$share/g/{device}"}, ["leave $share and the group out"]),
        ({"topic": "dt/\0/{device}"}, ["U+0000"]),
        ({"topic": "{id}/#/a+"}, ["{id}: there are only", "`#` must be the last", "a+: +"]),
        ({"topic": "dt/{device}", "device_field": "id"}, ["in topic, or in device_field, not both"]),
        ({"topic": "{type}/{device}"}, ["with {type} in topic list the device_types"]),
        ({"topic": "dt/{device}", "device_types": ["tilt"]}, ["device_types belongs to {type}"]),
        ({"topic": "x", "device_type": ""}, ["put {device} into topic", "name the device_type"]),
        ({"topic": "{device}", "alarm": {"field": "status"}}, ["alarm: field and values belong together"]),
        ({"topic": "{device}", "alarm": {"values": [1]}}, ["alarm: field and values belong together"]),
        ({"topic": "{device}", "alarm": {}}, ["write true, or { field ="]),
        ({"topic": "{device}", "alarm": "status"}, ["write true, or { field ="]),
        ({"topic": "{device}", "alarm": {"field": "s", "values": [[1]]}}, ["must be texts, numbers, true or false"]),
        ({"topic": "{device}", "qos": 1}, ["qos: Extra inputs are not permitted"]),
        ({"topic": "x", "format": "senml"}, ["format: Input should be 'json', 'thingsboard'"]),
        ({"topic": "x", "format": "thingsboard"}, ["put {device} into topic, or name the payload's field"]),
        ({"topic": "x", "format": "envelope"}, ["put {device} into topic, or name the payload's field"]),
        (
            {"topic": "x/{device}", "format": "envelope"},
            ["format envelope is of several devices: put +"],
        ),
        ({"topic": "x", "format": "chirpstack", "device_field": "id"}, ["name their devices: leave device_field out"]),
        ({"topic": "{device}", "time_field": "ts"}, ["time_field is nothing for format json"]),
        ({"topic": "{device}", "senml": {"metric": "x"}}, ["senml is nothing for format json"]),
        ({"topic": "x", "format": "senml-json", "envelope": {"items": "x"}}, ["envelope is nothing for format senml"]),
        (
            {"topic": "x", "format": "senml-json", "senml": {"separators": "|"}},
            ["senml.separators: String should"],
        ),
        ({"topic": "{device}", "sequence": {"field": "seq", "modulo": 100}}, ["sequence.modulo: Input should be 256"]),
        ({"topic": "x", "format": "chirpstack", "sequence": {"field": "n"}}, ["the frame counter as its sequence"]),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], said: list[str]) -> None:
    """A profile that cannot work is refused, with everything that is wrong with its topic."""
    with pytest.raises(ValidationError) as caught:
        profile(**table)

    told = "\n".join(mistakes(caught.value, "x.toml"))
    assert [each for each in said if each not in told] == []


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [
        ("dt/devices/{device}/telemetry", "dt/devices/{device}/status", False),
        ("dt/devices/{device}/telemetry", "dt/{device}/roof/telemetry", True),
        ("dt/devices/{device}/telemetry", "dt/{device}/#", True),
        ("dt/{device}/#", "dt/{device}", True),
        ("dt/{device}/a/b", "dt/{device}/a", False),
        ("dt/{device}/a/#", "dt/{device}", False),
    ],
)
def test_overlap_is_found(one: str, two: str, overlap: bool) -> None:
    """Two profiles overlap exactly when some topic is of both; the order does not matter."""
    assert profile(one).overlaps(profile(two)) is overlap
    assert profile(two).overlaps(profile(one)) is overlap


def test_profiles_must_go_together() -> None:
    """Every pair that takes the same topics, or has one name, is named at once."""
    three = [profile("a/{device}"), profile("{device}/b"), profile("a/{device}/#", name="third")]

    with pytest.raises(ValidationError) as caught:
        TypeAdapter(TopicProfiles).validate_python(three)

    (told,) = mistakes(caught.value, "x.toml")
    assert told.count("two profiles are named standard") == 1
    assert told.count("take the same topics") == 3


def test_no_profile_is_a_mistake() -> None:
    """Somebody who lists none takes nothing, which nobody means; one bad table is told alone."""
    with pytest.raises(ValidationError, match="at least one is needed"):
        TypeAdapter(TopicProfiles).validate_python([])
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(TopicProfiles).validate_python([{"name": "x", "topic": "x", "device_type": "tilt", "qos": 1}])

    assert mistakes(caught.value, "x.toml") == ["x.toml: 0.qos: Extra inputs are not permitted"]


def test_device_types_must_be_known() -> None:
    """Those that are not are all named, with what was probably meant."""
    typed = profile("plant/{type}/{device}", device_type="", device_types=["tilt", "metre"])

    with pytest.raises(ConfigError) as caught:
        check_device_types([*SHIPPED, typed], {name: TYPES[name] for name in ("environmental", "meter")})

    assert caught.value.mistakes == (
        "profile collector: device type 'collector' is unknown",
        "profile standard: device type 'tilt' is unknown",
        "profile standard: device type 'metre' is unknown; did you mean 'meter'?",
    )


def test_the_likeliest_topic() -> None:
    """What a topic was probably meant to be has its own device id."""
    assert SHIPPED[0].resembling("dt/device/roof-7/telemetry") == "dt/devices/roof-7/telemetry"
    assert SHIPPED[0].resembling("dt/devices//telemetry") == "dt/devices/{device}/telemetry"


@pytest.mark.parametrize(
    ("time", "more", "said"),
    [
        ({}, {}, []),
        ({"fields": ["at"]}, {"time_field": "at"}, []),
        ({"fields": ["at"]}, {}, ["writes times to 'timestamp', but device type 'plant' reads at: set time_field"]),
        ({"formats": ["epoch_s"]}, {}, ["writes times in ms, but device type 'plant' reads no epoch_ms"]),
    ],
)
def test_times_of_a_format_must_be_read(time: dict[str, Any], more: dict[str, Any], said: list[str]) -> None:
    """A device type that would not find them, or read them as seconds, is a mistake."""
    device_type = DeviceType.model_validate({"name": "plant", "time": time, "fields": {"value": {}}})
    senml = profile("senml", device_type="plant", format="senml-json", **more)

    try:
        check_device_types([senml], {"plant": device_type})
        wrong: tuple[str, ...] = ()
    except ConfigError as error:
        wrong = tuple(error.mistakes)

    assert list(wrong) == [f"profile standard: format senml-json {each}" for each in said]
