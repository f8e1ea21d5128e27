"""A preview is what the agents decide: over random histories, and piece by piece where nothing is random."""

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.agents.notifying.preview import Decided, Preview
from headrace.agents.notifying.settings import NotifySettings
from headrace.engine.log import Fetched
from headrace.engine.records import Record, Records
from headrace.engine.testkit import fetched
from headrace.schemas import topics
from headrace.schemas.notification import NotificationState
from headrace.schemas.user import User
from tests.agents.notifying.histories import MINUTE, AlertLog, World, events, to_records
from tests.agents.notifying.test_against_oracle import HOURS, _worlds

START = 1_750_000_000_000


def previewed(
    config: NotifySettings,
    person: User,
    records: Records,
    end_ms: int,
    *,
    partitions: int = 1,
    size: int = 1_000_000,
    start_ms: int = 0,
) -> Preview:
    """A preview over records that come so many at a time, spread over partitions by device."""
    found = Preview(person, config, {}, start_ms)
    for start in range(0, len(records), size):
        stretch = list(records.slice(start, start + size))
        found.take(_parts(stretch, partitions), stretch[-1].timestamp)
    found.finish(end_ms)
    return found


def _parts(rows: Sequence[Record], partitions: int) -> list[Fetched]:
    split = [[each for each in rows if sum(each.key or b"") % partitions == number] for number in range(partitions)]
    return [fetched(to_records(mine), topics.ALERTS, number) for number, mine in enumerate(split) if mine]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(world=_worlds(), size=st.sampled_from((1, 3, 1_000)))
def test_with_the_settings_that_hold_it_is_what_the_agents_decided(
    world: tuple[NotifySettings, dict[str, User], AlertLog, int], size: int
) -> None:
    """Each decision about each person, with its reasons and times, whatever the pieces in which the history comes."""
    config, people, log, start_ms = world
    end_ms = start_ms + HOURS * 60 * MINUTE
    agents = World(config, [(0, user_id, each) for user_id, each in people.items()])

    decided = [NotificationState.model_validate(each["data"]) for each in events(agents.run(log.records(), end_ms))]

    for user_id, person in people.items():
        found = previewed(config, person, log.records(), end_ms, size=size)
        assert [each.state for each in found.decisions] == [each for each in decided if each.userId == user_id]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(world=_worlds(), size=st.sampled_from((1, 3, 1_000)), partitions=st.integers(2, 4))
def test_partitions_of_the_history_change_nothing(
    world: tuple[NotifySettings, dict[str, User], AlertLog, int], size: int, partitions: int
) -> None:
    """What triggers in the same moment may change places; how much is sent when, by which channel, does not."""
    config, people, log, start_ms = world
    end_ms = start_ms + HOURS * 60 * MINUTE
    person = people["ada"]

    one = previewed(config, person, log.records(), end_ms)
    more = previewed(config, person, log.records(), end_ms, partitions=partitions, size=size)

    assert more.messages == one.messages
    assert [(each.state.decidedAt, each.state.status) for each in _sent(more)] == [
        (each.state.decidedAt, each.state.status) for each in _sent(one)
    ]


def _sent(found: Preview) -> list[Decided]:
    return sorted(
        (each for each in found.decisions if each.state.status == "queued"),
        key=lambda each: (each.state.decidedAt, each.state.channel or ""),
    )
