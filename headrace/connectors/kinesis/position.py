"""How far a shard of a Kinesis stream is in the log; committed with its messages."""

from typing import NamedTuple, Self

import orjson


class Position(NamedTuple):
    """A place in a shard.

    Args:
        sequence: number of the last record that is in the log, wholly or in part; empty before the first.
        taken: of that record so many messages are in the log; None for all of them.
        until_ms: what had arrived by then is in the log, ms since 1970 UTC; 0 if nothing is known.
        ended: the shard is closed and in the log to its end.
    """

    sequence: str = ""
    taken: int | None = None
    until_ms: int = 0
    ended: bool = False

    def dumps(self) -> bytes:
        """As `loads` reads it."""
        return orjson.dumps(self._asdict())

    @classmethod
    def loads(cls, data: bytes) -> Self:
        """What `dumps` wrote.

        >>> Position.loads(Position("17", None, 5, True).dumps())
        Position(sequence='17', taken=None, until_ms=5, ended=True)
        """
        said = orjson.loads(data)
        return cls(**{name: said[name] for name in cls._fields if name in said})


class Start(NamedTuple):
    """Where shards without a position are read from, fixed at the first start on a log.

    Args:
        created_ms: when the stream was made: one that was deleted and made anew is another, with other positions.
        since_ms: what arrived since then is taken; None for everything.
    """

    created_ms: int
    since_ms: int | None

    def dumps(self) -> bytes:
        """As `loads` reads it."""
        return orjson.dumps(self._asdict())

    @classmethod
    def loads(cls, data: bytes) -> Self:
        """What `dumps` wrote."""
        said = orjson.loads(data)
        return cls(said["created_ms"], said["since_ms"])
