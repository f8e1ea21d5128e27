"""The MQTT codec, byte for byte against the specifications (OASIS MQTT 3.1.1 and 5)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.mqtt.codec.frames import Frame, Frames
from headrace.connectors.mqtt.codec.packets import (
    NONE,
    V3,
    V5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Ping,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
)
from headrace.connectors.mqtt.codec.read import read
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.codec.topic import check_filter, matches
from headrace.connectors.mqtt.codec.write import write, write_acks

#: Packets and their bytes, written down by hand from the specifications' own figures.
GOLDEN: list[tuple[int, Packet, str]] = [
    (V3, Connect("ab", V3, True, 10), "10 0e 0004 4d515454 04 02 000a 0002 6162"),
    (
        V3,
        Connect("a", V3, False, 60, "u", b"p", Will(b"w", b"gone", 1, True)),
        "10 1c 0004 4d515454 04 ec 003c 0001 61 0001 77 0004 676f6e65 0001 75 0001 70",
    ),
    (
        V5,
        Connect("a", V5, True, 60, properties={"session_expiry_interval": 10}),
        "10 13 0004 4d515454 05 02 003c 05 11 0000000a 0001 61",
    ),
    (
        V5,
        Connect("a", V5, True, 0, None, b"p", Will(b"w", b"x", 0, False, {"will_delay_interval": 5})),
        "10 1d 0004 4d515454 05 46 0000 00 0001 61 05 18 00000005 0001 77 0001 78 0001 70",
    ),
    (V3, Connack(True, 0), "20 02 01 00"),
    (V3, Connack(False, Reason.NOT_AUTHORIZED), "20 02 00 05"),
    (V5, Connack(False, Reason.NOT_AUTHORIZED), "20 03 00 87 00"),
    (V5, Connack(False, 0, {"receive_maximum": 20, "maximum_qos": 1}), "20 08 00 00 05 21 0014 24 01"),
    (V3, Publish(b"a/b", b"x"), "30 06 0003 612f62 78"),
    (V3, Publish(b"a/b", b"", 10, 1, True, True), "3b 07 0003 612f62 000a"),
    (V5, Publish(b"a/b", b"x", 10, 2), "34 09 0003 612f62 000a 00 78"),
    (V5, Publish(b"", b"x", properties={"topic_alias": 7}), "30 07 0000 03 23 0007 78"),
    (V5, Publish(b"t", b"", properties={"user_property": [("k", "v")]}), "30 0b 0001 74 07 26 0001 6b 0001 76"),
    (V3, Ack(Kind.PUBACK, 258), "40 02 0102"),
    (V3, Ack(Kind.PUBREL, 258), "62 02 0102"),
    (V5, Ack(Kind.PUBREC, 258), "50 02 0102"),
    (V5, Ack(Kind.PUBACK, 1, Reason.NOT_AUTHORIZED), "40 03 0001 87"),
    (V5, Ack(Kind.PUBCOMP, 1, 0x92, {"reason_string": "no"}), "70 09 0001 92 05 1f 0002 6e6f"),
    (V3, Subscribe(10, (Filter("a/b", 1), Filter("c/d", 2))), "82 0e 000a 0003 612f62 01 0003 632f64 02"),
    (V5, Subscribe(10, (Filter("a", 1, True, True, 2),)), "82 07 000a 00 0001 61 2d"),
    (V3, Suback(Kind.SUBACK, 10, (0, 1, 0x80)), "90 05 000a 00 01 80"),
    (V5, Suback(Kind.SUBACK, 10, (0x87,)), "90 04 000a 00 87"),
    (V3, Unsubscribe(10, ("a/b", "c")), "a2 0a 000a 0003 612f62 0001 63"),
    (V3, Suback(Kind.UNSUBACK, 10), "b0 02 000a"),
    (V5, Suback(Kind.UNSUBACK, 10, (0x11,)), "b0 04 000a 00 11"),
    (V3, Ping(), "c0 00"),
    (V3, Ping(Kind.PINGRESP), "d0 00"),
    (V3, Disconnect(), "e0 00"),
    (V5, Disconnect(Reason.SESSION_TAKEN_OVER), "e0 01 8e"),
    (V5, Disconnect(0, {"session_expiry_interval": 1}), "e0 07 00 05 11 00000001"),
    (V5, Auth(0x18, {"authentication_method": "m"}), "f0 06 18 04 15 0001 6d"),
]


@pytest.mark.parametrize(("version", "packet", "wire"), GOLDEN)
def test_golden_bytes(version: int, packet: Packet, wire: str) -> None:
    """Packets are written as the specification draws them, and read back."""
    data = bytes.fromhex(wire)

    assert write(packet, version) == data
    assert [read(frame, version) for frame in Frames().feed(data)] == [packet]


@pytest.mark.parametrize(
    ("version", "wire", "reason"),
    [
        (V3, "00 00", 0x81),  # packet type 0
        (V3, "f0 00", 0x81),  # AUTH in 3.1.1
        (V3, "11 0e 0004 4d515454 04 02 000a 0002 6162", 0x81),  # flags in CONNECT
        (V3, "10 0e 0004 4d515450 04 02 000a 0002 6162", 0x81),  # not MQTT
        (V3, "10 0e 0004 4d515454 06 02 000a 0002 6162", 0x84),  # a version that is none
        (V3, "10 10 0006 4d5149736470 03 02 000a 0002 6162", 0x84),  # MQTT 3.1
        (V3, "10 0e 0004 4d515454 04 03 000a 0002 6162", 0x81),  # reserved connect flag
        (V3, "10 0e 0004 4d515454 04 0a 000a 0002 6162", 0x81),  # will QoS without will
        (V3, "10 0e 0004 4d515454 04 22 000a 0002 6162", 0x81),  # will retain without will
        (V3, "10 11 0004 4d515454 04 42 000a 0002 6162 0001 70", 0x81),  # password without user name
        (V3, "10 0f 0004 4d515454 04 02 000a 0002 6162 00", 0x81),  # a byte too many
        (V3, "10 0e 0004 4d515454 04 02 000a 0002 6100", 0x81),  # U+0000 in the client id
        (V3, "10 0e 0004 4d515454 04 02 000a 0002 c328", 0x81),  # not UTF-8
        (V3, "10 0f 0004 4d515454 04 02 000a 0003 eda080", 0x81),  # a surrogate
        (V5, "10 14 0004 4d515454 05 02 003c 06 21 000a 21 000a 0001 61", 0x82),  # property twice
        (V5, "10 11 0004 4d515454 05 02 003c 03 21 0000 0001 61", 0x82),  # receive maximum 0
        (V5, "10 11 0004 4d515454 05 02 003c 03 23 0001 0001 61", 0x81),  # topic alias in CONNECT
        (V5, "10 12 0004 4d515454 05 02 003c 04 16 0001 61 0001 61", 0x82),  # authentication data, no method
        (V3, "30 05 0003 612b62", 0x90),  # wildcard in a topic name
        (V3, "30 02 0000", 0x81),  # empty topic
        (V5, "30 03 0000 00", 0x82),
        (V5, "30 06 0000 03 23 0000", 0x94),  # topic alias 0
        (V3, "30 05 0003 610062", 0x81),
        (V3, "36 07 0003 612f62 000a", 0x81),  # QoS 3
        (V3, "38 05 0003 612f62", 0x81),  # DUP at QoS 0
        (V3, "32 07 0003 612f62 0000", 0x82),  # packet identifier 0
        (V3, "32 05 0003 612f62", 0x81),  # no packet identifier
        (V3, "30 01 00", 0x81),
        (V3, "40 03 0001 00", 0x81),  # a reason in 3.1.1
        (V3, "60 02 0001", 0x81),  # PUBREL without its flags
        (V3, "80 06 000a 0001 61 01", 0x81),  # SUBSCRIBE without its flags
        (V3, "82 02 000a", 0x82),  # nothing to subscribe to
        (V3, "82 06 000a 0001 61 03", 0x81),  # QoS 3
        (V3, "82 06 000a 0001 61 04", 0x81),  # an option of MQTT 5
        (V3, "82 08 000a 0003 612362 01", 0x8F),  # wildcard inside a level
        (V3, "a2 02 000a", 0x82),
        (V3, "c0 01 00", 0x81),
        (V5, "82 10 000a 00 000a 247368617265 2f672f61 05", 0x82),  # no local on a shared subscription
    ],
)
def test_what_is_not_allowed(version: int, wire: str, reason: int) -> None:
    """A packet that is malformed or breaks the protocol is refused with the reason that MQTT gives it."""
    with pytest.raises(BadPacket) as caught:
        [read(frame, version) for frame in Frames().feed(bytes.fromhex(wire))]

    assert caught.value.reason == reason


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = st.text("ab/ü $", min_size=1, max_size=12)
ids = st.integers(1, 65_535)
bits = st.integers(0, 1)
words = st.integers(1, 2**32 - 1)
numbers = st.integers(1, 2**28 - 1)
user = st.lists(st.tuples(texts, texts), min_size=1, max_size=2)


def some(each: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """A few of these."""
    return st.lists(each, min_size=1, max_size=3).map(tuple)


def properties(**known: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Some of these properties, and user properties."""
    return st.fixed_dictionaries({}, optional={**known, "user_property": user})


reasoned = properties(reason_string=texts)
will = st.builds(
    Will, names.map(str.encode), st.binary(max_size=9), st.integers(0, 2), st.booleans(),
    properties(will_delay_interval=words, content_type=texts, correlation_data=st.binary()),
)  # fmt: skip
packets5: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        Connect, texts, st.just(V5), st.booleans(), st.integers(0, 65_535), st.none() | texts,
        st.none() | st.binary(max_size=9), st.none() | will,
        properties(receive_maximum=ids, request_problem_information=bits, maximum_packet_size=words),
    ),
    st.builds(Connack, st.booleans(), st.sampled_from(Reason), properties(server_keep_alive=ids, maximum_qos=bits)),
    st.builds(
        Publish, names.map(str.encode), st.binary(max_size=300), st.just(0), st.just(0), st.just(False), st.booleans(),
        properties(topic_alias=ids, subscription_identifier=st.lists(numbers, min_size=1, max_size=3)),
    ),
    st.builds(
        Publish, names.map(str.encode), st.binary(max_size=300), ids, st.integers(1, 2), st.booleans(), st.booleans(),
        st.just(NONE),
    ),
    st.builds(
        Ack, st.sampled_from([Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP]), ids, st.sampled_from(Reason),
        reasoned,
    ),
    st.builds(
        Subscribe, ids,
        some(st.builds(Filter, names, st.integers(0, 2), st.just(False), st.booleans(), st.integers(0, 2))),
        properties(subscription_identifier=numbers),
    ),
    st.builds(Unsubscribe, ids, some(names), properties()),
    st.builds(
        Suback, st.sampled_from([Kind.SUBACK, Kind.UNSUBACK]), ids, some(st.sampled_from(Reason)),
        reasoned,
    ),
    st.builds(Ping, st.sampled_from([Kind.PINGREQ, Kind.PINGRESP])),
    st.builds(Disconnect, st.sampled_from(Reason), reasoned),
    st.builds(Auth, st.sampled_from([0x18, 0x19]), properties(authentication_method=texts)),
)  # fmt: skip


@given(st.lists(packets5, max_size=6), st.lists(st.integers(0, 2_000)))
def test_packets_come_back(packets: list[Packet], cuts: list[int]) -> None:
    """What is written is read back, wherever the stream is cut."""
    stream = b"".join(write(packet, V5) for packet in packets)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    frames = Frames()
    found: list[Frame] = []
    for start, stop in pairwise(places):
        found += frames.feed(stream[start:stop])

    assert [read(frame, V5) for frame in found] == packets
    assert frames.waiting == 0


@given(st.integers(0, 255), st.binary(max_size=60), st.sampled_from([V3, V5]))
def test_noise_is_refused_or_read(head: int, body: bytes, version: int) -> None:
    """Whatever comes, it is a packet or a `BadPacket`; and a packet that was read is written and read as the same."""
    try:
        packet = read(Frame(head, body), version)
    except BadPacket:
        return
    version = packet.version if isinstance(packet, Connect) else version

    assert [read(frame, version) for frame in Frames().feed(write(packet, version))] == [packet]


def test_large_packets_are_refused_before_they_are_read() -> None:
    """The length alone is enough."""
    with pytest.raises(BadPacket) as caught:
        Frames(largest=1000).feed(b"\x30\xe9\x07")

    assert caught.value.reason == Reason.PACKET_TOO_LARGE


@pytest.mark.parametrize("wire", ["30 ff ff ff ff 01", "30 80 00"])
def test_lengths_that_are_none(wire: str) -> None:
    """At most four bytes, and no more than needed."""
    with pytest.raises(BadPacket):
        Frames().feed(bytes.fromhex(wire))


def test_acks_behind_each_other() -> None:
    """Many acknowledgements are one piece of bytes."""
    assert write_acks(Kind.PUBACK, [1, 258]) == bytes.fromhex("40 02 0001 40 02 0102")
    assert write_acks(Kind.PUBREL, [1]) == bytes.fromhex("62 02 0001")


@pytest.mark.parametrize(
    "name", ["", "a#", "#/a", "a+/b", "a/#/b", "$share/g", "$share//a", "$share/g+/a", "$share/g/"]
)
def test_filters_that_are_none(name: str) -> None:
    """Wildcards stand alone, `#` last; a shared subscription has a group and a filter."""
    with pytest.raises(BadPacket):
        check_filter(name)


@pytest.mark.parametrize(
    ("name", "topic", "taken"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/a", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("a/b", "a/b/c", False),
    ],
)
def test_matching(name: str, topic: str, taken: bool) -> None:
    """The examples of 4.7."""
    assert matches(name, topic) is taken
