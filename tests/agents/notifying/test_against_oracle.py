"""Random histories of alerts, random people, both nights on which clocks change: against a plain oracle."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.agents.notifying.settings import NotifySettings
from headrace.schemas.notification import MOST_ALERTS
from headrace.schemas.user import User
from tests.agents.notifying.histories import MINUTE, AlertLog, World, events, outbox
from tests.agents.notifying.oracle import Message, Oracle

SEVERITIES = {"damp": "info", "hot": "warning", "fire": "critical"}
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")
#: Evenings before clocks change in Europe, America and Australia, and an ordinary one.
EVENINGS = tuple(
    round(datetime(*day, 18, tzinfo=UTC).timestamp() * 1000)
    for day in ((2025, 3, 29), (2025, 10, 25), (2025, 3, 8), (2025, 11, 1), (2025, 4, 5), (2025, 10, 4), (2025, 6, 1))
)
HOURS = 40
CHANNELS = ("email", "push", "sms")

_channels = st.lists(st.sampled_from(CHANNELS), unique=True, max_size=3)
_clock = st.sampled_from(("22:00", "23:30", "01:30", "02:15", "02:30", "07:00", "08:00", "13:00"))
_severities = st.lists(st.sampled_from(("info", "warning", "critical")), unique=True)


@st.composite
def _users(draw: st.DrawFn, user_id: str) -> User:
    start, end = draw(_clock), draw(_clock)
    quiet = {"start": start, "end": end, "override": draw(_severities)} if start != end else None
    subscription: dict[str, Any] = {"severities": draw(_severities), "channels": draw(st.none() | _channels)}
    preferences: dict[str, Any] = {
        "notifications": {each: draw(st.booleans() | st.just(True)) for each in CHANNELS},
        "severities": draw(st.dictionaries(st.sampled_from(list(SEVERITIES.values())), _channels, max_size=2)),
        "quietHours": quiet if draw(st.booleans()) else None,
        "subscribedDevices": draw(st.sampled_from(([], ["*"], ["d-0", "d-1"]))),
        "subscriptions": [subscription] if draw(st.booleans()) else [],
    }
    on_call = {"team": "ops", "start": "2025-01-01T00:00:00", "hours": draw(st.sampled_from((8, 24))),
               "rrule": "FREQ=DAILY"}  # fmt: skip
    return User.model_validate({
        "userId": user_id, "email": draw(st.sampled_from((None, f"{user_id}@example.com"))),
        "phone": draw(st.sampled_from((None, "+4930123456"))), "deviceTokens": draw(st.sampled_from(([], ["t"]))),
        "timezone": draw(st.sampled_from(ZONES)), "preferences": preferences,
        "onCall": [on_call] if draw(st.booleans()) else [],
    })  # fmt: skip


_settings = st.builds(
    lambda tell, email, step, repeat, channels: NotifySettings.model_validate({
        "tell": tell, "caps": {"email": email, "push": ["2/3m"], "sms": ["1/15m", "3/60m"]},
        "escalations": [{
            "name": "ops", "severities": ["critical", "warning"], "repeat": repeat,
            "steps": [{"after": step, "team": "ops", "channels": channels}, {"after": "7m", "subscribers": True}],
        }],
    }),
    st.sampled_from((["triggered", "resolved"], ["triggered", "acknowledged", "resolved"], ["triggered"])),
    st.sampled_from((["1/1m"], ["1/10m"], ["2/5m", "3/60m"], [])),
    st.sampled_from(("1m", "5m")),
    st.integers(0, 2),
    st.sampled_from((None, ["sms"], ["email", "push"])),
)  # fmt: skip


@st.composite
def _histories(draw: st.DrawFn, start_ms: int) -> AlertLog:
    """Each alert is worked on as it can be; sometimes many trigger at once."""
    log, now = AlertLog(SEVERITIES), start_ms
    for _ in range(draw(st.integers(1, 30))):
        now += draw(st.sampled_from((0, 0, 1, 2, 5, 30, 120, 240))) * MINUTE
        if now > start_ms + (HOURS - 1) * 60 * MINUTE:
            break
        rule, device = draw(st.sampled_from(list(SEVERITIES))), f"d-{draw(st.integers(0, 3))}"
        if not log.is_open(rule, device):
            if (rule, device) in log.newest and log.newest[rule, device].triggeredAt >= now:
                continue
            storm = draw(st.sampled_from((0, 0, 0, 0, 30)))
            log.trigger(rule, device, now, by=draw(st.sampled_from(("", "", "", "silence"))))
            for number in range(storm):
                if not log.is_open(rule, f"s-{number}"):
                    log.trigger(rule, f"s-{number}", now + MINUTE)
            now += MINUTE * bool(storm)
            continue
        alert = log.newest[rule, device]
        action = draw(st.sampled_from(("acknowledge", "resolve", "silence", "snooze", "comment")))
        if action == "acknowledge" and alert.status == "triggered":
            log.acknowledge(rule, device, now)
        elif action == "resolve":
            log.resolve(rule, device, now)
        elif alert.suppressed is not None:
            log.unsuppress(rule, device, now)
        elif action in ("silence", "snooze"):
            log.suppress(rule, device, now, action)
        else:
            log.comment(rule, device, now)
    return log


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[NotifySettings, dict[str, User], AlertLog, int]:
    start_ms = draw(st.sampled_from(EVENINGS))
    people = {user_id: draw(_users(user_id)) for user_id in ("ada", "bob")}
    return draw(_settings), people, draw(_histories(start_ms)), start_ms


def _messages(sent: list[dict[str, Any]]) -> list[Message]:
    """As the oracle has them; of a digest the alerts that it shows."""
    return [
        (
            each["decidedAt"], each["userId"], each["channel"], each["kind"],
            tuple((one["alert"]["alertId"], one["alert"]["revision"]) for one in each["subjects"]),
        )
        for each in sent
    ]  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(world=_worlds(), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=4), idle=st.booleans())
def test_everybody_is_told_what_the_oracle_says(
    world: tuple[NotifySettings, dict[str, User], AlertLog, int], cuts: list[int], idle: bool
) -> None:
    """Each message, when it goes and what is in it; whole or in batches, with restarts after each, all the same."""
    config, people, log, start_ms = world
    end_ms = start_ms + HOURS * 60 * MINUTE
    agents = World(config, [(0, user_id, user) for user_id, user in people.items()])

    driven = agents.run(log.records(), end_ms)
    again = agents.run(log.records(), end_ms, cuts, range(0, 100, 2) if idle else (), restart=True)

    assert again == driven
    assert driven.dead_letters == []
    sent = outbox(driven)
    expected = Oracle(config, people).run(log.events, start_ms, end_ms)
    found = _messages(sent)
    assert len({each["notificationId"] for each in sent}) == len(sent)
    assert sorted(found) == sorted((*each, alerts[:MOST_ALERTS]) for *each, alerts in expected)
    _check_digests(sent, expected, events(driven))


def _check_digests(sent: list[dict[str, Any]], expected: list[Message], decided: list[dict[str, Any]]) -> None:
    """A digest names and counts every alert that waited, and tells them from others."""
    waited = {(at_ms, user, channel): alerts for at_ms, user, channel, kind, alerts in expected if kind == "digest"}
    queued = {each["data"]["notificationId"]: each["data"] for each in decided if each["data"]["status"] == "queued"}
    for each in sent:
        assert queued[each["notificationId"]]["status"] == "queued"
        if each["kind"] != "digest":
            assert each["dedupKey"] == each["subjects"][0]["alert"]["alertId"]
            continue
        alerts = dict(waited[each["decidedAt"], each["userId"], each["channel"]])
        state = queued[each["notificationId"]]
        assert set(state.get("alertIds", [state["alertId"]])) == set(alerts)
        assert sum(one["alerts"] for one in each["counts"]) == len(alerts)
