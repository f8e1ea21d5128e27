"""The rule of DESIGN 4.7: what a second message of the same device and time is."""

from enum import IntEnum
from typing import Any

import orjson

from headrace.tables.seen_block import Entry


class Verdict(IntEnum):
    """What a message is, compared with what was accepted before."""

    NEW = 0
    #: Older than the horizon: passed on unseen; the sink is the backstop.
    BEYOND = 1
    #: Fills only what was absent.
    COMPLETION = 2
    #: Says nothing that was not said.
    DUPLICATE = 3
    #: Contradicts what was said.
    CONFLICT = 4


def compare(known: Entry, said: Entry) -> tuple[Verdict, Entry]:
    """What a message that says `said` is where `known` was accepted, and what is known with it.

    >>> compare(Entry({"a": 1.0}, None), Entry({"a": 1.0, "b": 2.0}, None))
    (<Verdict.COMPLETION: 2>, Entry(measures={'a': 1.0, 'b': 2.0}, extra=None))
    """
    before, now = known.measures, said.measures
    if any(before.get(name, value) != value for name, value in now.items()):
        return Verdict.CONFLICT, known
    extra = known.extra
    if said.extra is not None and said.extra != known.extra:
        merged = _merge(known.extra, said.extra)
        if merged is None:
            return Verdict.CONFLICT, known
        extra = merged
    if extra == known.extra and now.keys() <= before.keys():
        return Verdict.DUPLICATE, known
    return Verdict.COMPLETION, Entry({**before, **now}, extra)


def _merge(known: bytes | None, said: bytes) -> bytes | None:
    """Both JSON objects in one, keys sorted; None if they contradict each other."""
    before = _values(known)
    now = _values(said)
    if any(before.get(name, value) != value for name, value in now.items()):
        return None
    merged = {name: orjson.Fragment(value) for name, value in sorted({**before, **now}.items())}
    return orjson.dumps(merged)


def _values(extra: bytes | None) -> dict[str, bytes]:
    # Compared as JSON, because in Python 1 == True.
    fields: dict[str, Any] = orjson.loads(extra) if extra else {}
    return {name: orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for name, value in fields.items()}
