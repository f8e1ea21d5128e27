"""Records of a shard as messages, in pieces, and where they go on."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.kinesis.messages import MessageMaker
from headrace.connectors.kinesis.position import Position
from headrace.connectors.kinesis.shards import Arrived, Read
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from tests.connectors.kinesis.aggregate import aggregate

Records = list[list[tuple[str, bytes]]]
#: Each is a record; with one message it may be a plain one.
records = st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=9)), max_size=7), max_size=9)


def arrived(sent: Records) -> list[Arrived]:
    """As they are in the shard, one a second."""
    return [
        Arrived(str(place), users[0][0].encode(), users[0][1], place * 1000)
        if len(users) == 1
        else Arrived(str(place), b"all", aggregate(users), place * 1000)
        for place, users in enumerate(sent)
    ]


def behind(position: Position, shard: list[Arrived]) -> list[Arrived]:
    """What Kinesis gives from there: behind the record, or beginning with it."""
    if not position.sequence:
        return shard
    return shard[int(position.sequence) + (position.taken is None) :]


@given(records, st.integers(1, 20), st.lists(st.integers(0, 5), max_size=8))
def test_killed_behind_any_piece_it_goes_on_exactly(sent: Records, max_batch: int, kills: list[int]) -> None:
    """Every message once and in order, however the pieces are cut and wherever each run ends."""
    shard, maker = arrived(sent), MessageMaker("s", KinesisSourceSettings(max_batch=max_batch))
    position, found = Position(), list[tuple[str, bytes]]()
    for kill in [*kills, len(shard) * 7 + 1]:
        read = Read(behind(Position.loads(position.dumps()), shard), "more", 0)
        for place, piece in enumerate(maker.pieces(read, position, 0)):
            if place == kill:
                break
            assert len(piece.payloads) <= max_batch
            found += [(key.decode(), data) for key, data in zip(piece.device_ids, piece.payloads, strict=True)]
            position = piece.position

    assert found == [user for users in sent for user in users]


def test_the_last_piece_says_that_the_shard_has_ended() -> None:
    """Also when it holds no message; and until when everything is read."""
    maker = MessageMaker("s", KinesisSourceSettings())
    whole = list(maker.pieces(Read(arrived([[("a", b"1")]]), None, 0), Position(), 5))
    empty = list(maker.pieces(Read([], None, 0), Position("7", 2, 3), 9))

    assert [piece.position for piece in whole] == [Position("0", None, 5, True)]
    assert [piece.position for piece in empty] == [Position("7", 2, 9, True)]


def test_pieces_are_cut_by_size_too() -> None:
    """Four MiB and one message at most."""
    maker = MessageMaker("s", KinesisSourceSettings())
    read = Read(arrived([[("a", bytes(1_000_000))]] * 10), "more", 0)

    assert [len(piece.payloads) for piece in maker.pieces(read, Position(), 0)] == [5, 5, 0]
