"""MQTT on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.mqtt.packets import Frame, Frames, pubacks, read_publish
from headrace.engine.errors import Disconnected


def frame_bytes(frame: Frame) -> bytes:
    """`frame` as the broker sends it; written apart from the code under test."""
    length, digits = len(frame.body), b""
    while True:
        length, digit = divmod(length, 128)
        digits += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([frame.head]) + digits + frame.body


FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 255),
        st.one_of(st.binary(max_size=300), st.sampled_from([bytes(16_384), bytes(2_097_152)])),
    ),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(0, 5_000_000), max_size=8))
def test_packets_do_not_depend_on_how_the_stream_is_cut(frames: list[Frame], cuts: list[int]) -> None:
    """Whatever the pieces in which the bytes come, the same packets come out."""
    stream = b"".join(map(frame_bytes, frames))
    reader, found, start = Frames(), [], 0

    for cut in [*sorted(cuts), len(stream)]:
        found += reader.feed(stream[start:cut])
        start = max(start, min(cut, len(stream)))

    assert found == frames


@given(st.lists(st.builds(Frame, st.integers(0, 255), st.binary(max_size=200)), max_size=4))
def test_packets_come_out_byte_by_byte(frames: list[Frame]) -> None:
    """One byte at a time is enough."""
    reader = Frames()

    found = [frame for byte in b"".join(map(frame_bytes, frames)) for frame in reader.feed(bytes([byte]))]

    assert found == frames


def test_a_length_of_five_bytes_closes_the_connection() -> None:
    """A packet length that MQTT does not allow is an error, not a huge buffer."""
    with pytest.raises(Disconnected):
        Frames().feed(b"\x30\xff\xff\xff\xff\x01")


def test_a_publish_shorter_than_its_topic_closes_the_connection() -> None:
    """A malformed PUBLISH is an error, not a message."""
    with pytest.raises(Disconnected):
        read_publish(Frame(0x32, b"\x00\x09short"))


def test_publish_is_read_at_both_qualities() -> None:
    """Topic, payload, packet id and the DUP flag are where MQTT 3.1.1 has them."""
    at_most_once = read_publish(Frame(0x30, b"\x00\x03a/bpayload"))
    at_least_once = read_publish(Frame(0x3A, b"\x00\x03a/b\x01\x02payload"))

    assert at_most_once == (b"a/b", b"payload", 0, False)
    assert at_least_once == (b"a/b", b"payload", 0x0102, True)


def test_pubacks_go_out_in_order() -> None:
    """Acknowledgements are written in the order asked for."""
    assert pubacks([1, 0x0203]) == b"\x40\x02\x00\x01\x40\x02\x02\x03"
