"""How partitions are shared out among workers."""

from collections.abc import Mapping
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.app import App
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.runtime.assignor import StickyAssignor, share_copies, share_out

NAMES = "abcdefgh"


class Cluster:
    """As much of a cluster as an assignor asks for."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        count = self._partitions.get(topic)
        return None if count is None else set(range(count))


class Group:
    """Workers, each with its assignor, that are given partitions round after round."""

    def __init__(self, app: App, cluster: Cluster, standbys: int) -> None:
        self._app = app
        self._standbys = standbys
        self._cluster = cluster
        self.topics = ["raw", "readings"]
        self.assignors: dict[str, Any] = {}

    def join(self, *names: str) -> None:
        """New workers, which have nothing."""
        self.assignors |= {name: StickyAssignor(self._app, replicas=self._standbys) for name in names}

    def share(self) -> dict[str, dict[str, list[int]]]:
        """One round; by worker and topic."""
        metadata = {name: assignor.metadata(self.topics) for name, assignor in self.assignors.items()}
        leader = next(iter(self.assignors.values()))
        shares: Mapping[str, ConsumerProtocolMemberAssignment] = leader.assign(self._cluster, metadata)
        for name, assignor in self.assignors.items():
            assignor.on_assignment(shares[name])
        return {name: {topic: list(numbers) for topic, numbers in share.assignment} for name, share in shares.items()}


async def group(standbys: int = 0, **partitions: int) -> Group:
    return Group(App("g", EmbeddedLog(MEMORY)), Cluster(**partitions), standbys)


@given(
    count=st.integers(1, 64),
    load=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9), min_size=1),
    before=st.dictionaries(st.integers(0, 63), st.sampled_from(NAMES)),
)
def test_everything_is_shared_out_evenly_and_moves_only_for_that(
    count: int, load: dict[str, int], before: dict[int, str]
) -> None:
    """Each partition to one member; counts differ by one at most; nobody loses one to get another."""
    shares = share_out(count, load, before)

    assert sorted(number for share in shares.values() for number in share) == list(range(count))
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1
    for member, share in shares.items():
        had = {number for number in range(count) if before.get(number) == member}
        assert had >= set(share) or had <= set(share)
    # No other even division would leave more where it was.
    kept = sum(before.get(number) == member for member, share in shares.items() for number in share)
    least, extra = divmod(count, len(load))
    had_by = [sum(before.get(number) == member for number in range(count)) for member in load]
    most = sum(min(had, least) for had in had_by) + min(extra, sum(had > least for had in had_by))
    assert kept == most


async def test_co_partitioned_topics_stay_together() -> None:
    """Partition 3 of one is with partition 3 of the other; topics with other counts are shared out on their own."""
    workers = await group(raw=8, readings=8, other=3)
    workers.topics = ["raw", "readings", "other"]
    workers.join("a", "b", "c")

    shares = workers.share()

    assert all(share["raw"] == share["readings"] for share in shares.values())
    assert sorted(number for share in shares.values() for number in share["other"]) == [0, 1, 2]


async def test_everybody_gets_something() -> None:
    """Eight partitions for five workers, of which Faust's own assignor leaves one without any."""
    workers = await group(raw=8, readings=8)
    workers.join("a", "b", "c", "d", "e")

    shares = workers.share()

    assert sorted(len(share["raw"]) for share in shares.values()) == [1, 1, 2, 2, 2]


async def test_who_leaves_and_comes_moves_as_little_as_possible() -> None:
    """A fourth worker takes from those who have most; when it leaves, the others get only what it had."""
    workers = await group(raw=12, readings=12)
    workers.join("a", "b", "c")
    three = workers.share()
    workers.join("d")
    four = workers.share()
    del workers.assignors["d"]
    again = workers.share()

    assert all(set(four[name]["raw"]) < set(three[name]["raw"]) for name in "abc")
    assert all(set(again[name]["raw"]) > set(four[name]["raw"]) for name in "abc")


async def test_claim_of_who_slept_is_worth_nothing() -> None:
    """A worker that missed rounds claims what others have by now; theirs is the later claim."""
    workers = await group(raw=4, readings=4)
    workers.join("sleeper", "other")
    workers.share()
    sleeper = workers.assignors.pop("sleeper")
    workers.join("third")
    meanwhile = workers.share()
    workers.assignors["sleeper"] = sleeper
    workers.join("fourth")

    shares = workers.share()

    for name in ("other", "third"):
        assert set(shares[name]["raw"]) <= set(meanwhile[name]["raw"])


async def test_topic_that_does_not_exist_yet_is_left_out() -> None:
    """It is shared out once it is there."""
    workers = await group(raw=2)
    workers.join("a", "b")

    assert sorted(share.get("raw", []) for share in workers.share().values()) == [[0], [1]]
    assert all("readings" not in share for share in workers.share().values())


async def test_worker_without_a_past_is_welcome() -> None:
    """Nothing, or nonsense, in the place of its claim."""
    workers = await group(raw=2, readings=2)
    workers.join("a")
    metadata = {"a": workers.assignors["a"].metadata(["raw"]), "b": workers.assignors["a"].metadata(["raw"])}
    metadata["b"].user_data = b"\xff nonsense"

    shares = workers.assignors["a"].assign(Cluster(raw=2), metadata)

    assert sorted(share.assignment for share in shares.values()) == [[("raw", [0])], [("raw", [1])]]


# -- copies of tables


@given(
    wanted=st.integers(0, 4),
    count=st.integers(1, 40),
    load=st.dictionaries(st.sampled_from(NAMES), st.just(0), min_size=1),
    before=st.dictionaries(st.integers(0, 39), st.lists(st.sampled_from(NAMES), unique=True)),
)
def test_copies_are_with_others(wanted: int, count: int, load: dict[str, int], before: dict[int, list[str]]) -> None:
    """Each partition has as many as wanted, or as there are others; never its owner."""
    shares = share_out(count, load, {})
    copies = share_copies(wanted, shares, before)

    for member, numbers in copies.items():
        assert not set(numbers) & set(shares[member])
        assert len(numbers) == len(set(numbers))
    assert sorted(number for numbers in copies.values() for number in numbers) == sorted(
        [*range(count)] * min(wanted, len(load) - 1)
    )


@given(workers=st.integers(2, 6), count=st.integers(2, 24), data=st.data())
async def test_standby_takes_over(workers: int, count: int, data: st.DataObject) -> None:
    """When a worker dies its partitions go to those that have copies, and all others stay."""
    names = NAMES[:workers]
    here = await group(standbys=1, raw=count, readings=count)
    here.join(*names)
    before = here.share()
    gone = data.draw(st.sampled_from(names))
    standing_by = {name: {n for t, n in here.assignors[name].standbys if t == "raw"} for name in names}
    del here.assignors[gone]

    after = here.share()

    orphans = set(before[gone].get("raw", []))
    warm = {
        number for name, share in after.items() for number in orphans & set(share.get("raw", [])) & standing_by[name]
    }
    assert warm == orphans
    for name, share in after.items():
        assert set(share.get("raw", [])) >= set(before[name].get("raw", []))


async def test_copies_stay_where_they_are() -> None:
    """The next round with the same workers moves neither partitions nor copies."""
    workers = await group(standbys=1, raw=7, readings=7)
    workers.join("a", "b", "c")
    workers.share()
    before = {name: assignor.standbys for name, assignor in workers.assignors.items()}

    workers.share()

    assert {name: assignor.standbys for name, assignor in workers.assignors.items()} == before
    assert sum(len(standbys) for standbys in before.values()) == 14


async def test_one_worker_stands_by_for_nobody() -> None:
    """There is nobody else."""
    workers = await group(standbys=2, raw=4, readings=4)
    workers.join("a")
    workers.share()

    assert not workers.assignors["a"].standbys
