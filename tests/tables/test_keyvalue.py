"""The plain table."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.tables.keyvalue import KeyValue

keys = st.lists(st.sampled_from(["a", "b", 'c"', "d\0e", "ä"]), min_size=1, max_size=2).map(tuple)
writes = st.lists(st.dictionaries(keys, st.none() | st.text(max_size=3), max_size=4), max_size=8)


def table() -> KeyValue[tuple[str, ...], str]:
    return KeyValue("test", str.encode, bytes.decode)


@given(writes)
def test_the_changelog_holds_what_the_table_holds(writes: list[dict[tuple[str, ...], str | None]]) -> None:
    """Whatever is written and deleted, the changelog restores it; a key is in `changes` once per commit."""
    before, after, changelog = table(), table(), dict[bytes, bytes]()
    for number, entries in enumerate(writes):
        before.update(0, entries)
        if number % 2:
            for key, value in before.changes(0).items():
                if value is None:
                    changelog.pop(key, None)
                else:
                    changelog[key] = value
    for key, value in before.changes(0).items():
        changelog = {**changelog, key: value} if value is not None else {k: v for k, v in changelog.items() if k != key}

    after.restore(0, list(changelog.items()))
    after.restored(0)

    assert after.view(0) == before.view(0)
    assert before.changes(0) == {}


def test_partitions_are_apart() -> None:
    """An update of one partition is not seen in another, and forgetting one leaves the others."""
    both = table()
    both.update(0, {("a",): "zero"})
    both.update(1, {("a",): "one"})

    both.forget(0)

    assert (dict(both.view(0)), dict(both.view(1))) == ({}, {("a",): "one"})
    assert both.changes(0) == {}
