"""What goes into a commit, and what has to wait."""

from collections.abc import AsyncIterator, Mapping

import pytest

from headrace.engine.batch import Send
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import CommitRefused
from headrace.engine.log import Changes, Member, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics
from headrace.engine.records import Records
from headrace.engine.runtime.commits import Commits
from headrace.engine.runtime.lanes import Lanes

A, B = TopicPartition("a", 0), TopicPartition("b", 0)
OUT = TopicPartition("out", 0)
ME = Member("me", 1)


class RefusingLog(EmbeddedLog):
    """Refuses commits while it is told to."""

    refuses = False

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        if self.refuses:
            raise CommitRefused("moved on")
        return await super().commit(transaction)


@pytest.fixture
async def log() -> AsyncIterator[RefusingLog]:
    """With three topics of one partition."""
    log = RefusingLog(MEMORY)
    await log.create_topics([TopicSpec(name, 1) for name in ("a", "b", "out")])
    yield log
    await log.close()


def new_commits(log: EmbeddedLog, *, coupled: bool = False) -> Commits:
    """Without tables; `coupled` says that both topics write one."""

    def changes(target: TopicPartition) -> list[Changes]:
        return []

    def view(target: TopicPartition) -> list[Send]:
        return []

    return Commits(
        log,
        "g",
        changes,
        view,
        lambda target: {A, B} if coupled else set(),
        SystemClock(),
        Metrics(),
        Lanes(SystemClock()),
    )


def work(commits: Commits, target: TopicPartition, position: int, *values: bytes) -> None:
    """One batch from its begin to its end, which sends `values`."""
    commits.begin(target, 1)
    commits.finish(target, position, [send for value in values for send in sends(value)])


def sends(value: bytes) -> list[Send]:
    return [Send("out", Records([b"k"], [value], [1]), 0)]


async def written(log: EmbeddedLog) -> list[bytes | None]:
    fetched = await log.reader().read(OUT, 0, 100)
    return [] if fetched is None else list(fetched.records.values)


async def test_partition_inside_a_batch_is_left_out(log: RefusingLog) -> None:
    """Its tables are half-way. What it finished before comes with the next commit."""
    commits = new_commits(log)
    for target in (A, B):
        work(commits, target, 1, target.topic.encode())
    commits.begin(A, 1)

    await commits.commit(ME)
    first = await written(log)
    commits.finish(A, 2, [])
    await commits.commit(ME)

    assert first == [b"b"]
    assert await written(log) == [b"b", b"a"]
    assert commits.committed == {A: 2, B: 1}


async def test_partitions_that_share_a_table_are_committed_together(log: RefusingLog) -> None:
    """While one is inside a batch the other waits: a commit would hold half of that batch."""
    commits = new_commits(log, coupled=True)
    commits.begin(A, 1)
    commits.begin(B, 1)
    commits.finish(B, 1, sends(b"b"))

    await commits.commit(ME)
    first = await written(log)
    commits.finish(A, 1, sends(b"a"))
    await commits.commit(ME)

    assert first == []
    assert sorted(await written(log), key=str) == [b"a", b"b"]


async def test_refused_partition_is_committed_no_more(log: RefusingLog) -> None:
    """Its tables are ahead of the log, whatever it does next; `forget` names it, and ends that."""
    commits = new_commits(log)
    work(commits, A, 1, b"refused")
    log.refuses = True
    with pytest.raises(CommitRefused):
        await commits.commit(ME)
    log.refuses = False
    work(commits, A, 2, b"built on it")
    work(commits, B, 1, b"other")

    await commits.commit(ME)
    ahead = commits.forget()
    work(commits, A, 1, b"again")
    await commits.commit(ME)

    assert ahead == {A}
    assert await written(log) == [b"other", b"again"]


async def test_finished_work_that_is_forgotten_is_told(log: RefusingLog) -> None:
    """Tables of a partition that finished records, and did not commit them, are ahead; a mere move changes none."""
    commits = new_commits(log)
    work(commits, A, 1)
    commits.move(B, 5)

    assert commits.forget() == {A}


async def test_time_that_led_to_nothing_is_not_committed(log: RefusingLog) -> None:
    """A commit would only repeat a position. What time led to is committed, and told if it is forgotten."""
    commits = new_commits(log)
    commits.begin_at({A: 3, B: 3})
    for target, values in (A, [b"late"]), (B, []):
        commits.begin(target, 0)
        commits.finish(target, 3, [send for value in values for send in sends(value)])

    await commits.commit(ME)
    commits.begin(A, 0)
    commits.finish(A, 3, sends(b"later"))

    assert await written(log) == [b"late"]
    assert await log.positions("g", "a") == {A: 3}
    assert await log.positions("g", "b") == {B: 0}
    assert commits.forget() == {A}


async def test_partition_that_somebody_moved_on_is_told(log: RefusingLog) -> None:
    """Whoever comes back to partitions has old tables if the position is not the one it left."""
    commits = new_commits(log)
    first = commits.begin_at({A: 0, B: 0})
    work(commits, A, 3)
    await commits.commit(ME)

    again = commits.begin_at({A: 3, B: 7})

    assert first == {A, B}
    assert again == {B}


async def test_position_that_went_back_is_told(log: RefusingLog) -> None:
    """Even if the partition was away meanwhile."""
    commits = new_commits(log)
    commits.begin_at({A: 9})
    commits.begin_at({B: 0})
    commits.begin_at({A: 4, B: 1})

    assert (commits.lost(A), commits.lost(B)) == (5, 0)
