"""What is held and what of it is told: storms, silences, rules and people that change meanwhile."""

from collections import Counter
from typing import Any

from headrace.agents.notifying.held import MOST_TRACKED
from headrace.agents.notifying.settings import NotifySettings
from headrace.schemas.notification import MOST_ALERTS
from headrace.schemas.user import User
from tests.agents.notifying.histories import MINUTE, AlertLog, World, events, outbox
from tests.agents.notifying.people import at, user

NIGHT = at("2025-06-01T23:00")
MORNING = at("2025-06-02T08:00")
SLEEPS = {"subscribedDevices": ["*"], "quietHours": {"enabled": True, "start": "22:00", "end": "08:00"}}
#: Mail only, at most one a minute.
SETTINGS = NotifySettings.model_validate({"matrix": {each: ["email"] for each in ("info", "warning", "critical")}})


def sleeper(**preferences: Any) -> User:
    """Somebody who sleeps from ten to eight, UTC, but for critical alerts."""
    return user(preferences={**SLEEPS, **preferences})


def mails(
    log: AlertLog,
    *changes: tuple[int, str, User | None],
    settings: NotifySettings = SETTINGS,
    cuts: tuple[int, ...] = (),
) -> list[dict[str, Any]]:
    """What goes out until the next noon."""
    driven = World(settings, changes).run(log.records(), MORNING + 4 * 60 * MINUTE, cuts, restart=bool(cuts))
    assert driven.dead_letters == []
    return outbox(driven)


def shown(mail: dict[str, Any]) -> list[tuple[str, str]]:
    """Rule and device of the alerts that are shown."""
    return [(each["alert"]["ruleId"], each["alert"]["deviceId"]) for each in mail["subjects"]]


def test_a_thousand_alerts_in_a_second_are_one_mail_and_one_digest() -> None:
    """For each person, and the digest counts all but the first, in whatever batches they come."""
    log = AlertLog({"hot": "warning"})
    for number in range(1_000):
        log.trigger("hot", f"d-{number}", NIGHT + number)
    people = [(0, name, user(name, preferences={"subscribedDevices": ["*"]})) for name in ("ada", "bob")]

    sent = mails(log, *people)

    assert Counter((each["userId"], each["kind"]) for each in sent) == {
        (name, kind): 1 for name in ("ada", "bob") for kind in ("alert", "digest")
    }
    digest = sent[-1]
    assert digest["counts"] == [
        {"ruleId": "hot", "ruleName": "Hot", "severity": "warning", "alerts": 999, "open": 999, "devices": 999}
    ]
    assert shown(digest) == [("hot", f"d-{number}") for number in range(1, 1 + MOST_ALERTS)]
    assert mails(log, *people, cuts=(300,)) == sent


def test_a_digest_shows_what_is_left_when_the_first_are_silenced() -> None:
    """Those of which the list has all fields are gone: the others are told as they are."""
    log = AlertLog({"hot": "warning"})
    for number in range(MOST_ALERTS + 5):
        log.trigger("hot", f"d-{number}", NIGHT + number)
    for number in range(MOST_ALERTS):
        log.suppress("hot", f"d-{number}", NIGHT + MINUTE)
    log.resolve("hot", f"d-{MOST_ALERTS}", NIGHT + 2 * MINUTE)

    (digest,) = mails(log, (0, "ada", sleeper()))

    assert digest["decidedAt"] == MORNING
    assert shown(digest) == [("hot", f"d-{MOST_ALERTS + number}") for number in range(5)]
    assert [each["alert"]["status"] for each in digest["subjects"]] == ["resolved", *["triggered"] * 4]
    assert digest["counts"][0]["open"] == 4


def test_what_is_only_counted_is_told_when_all_others_are_silenced() -> None:
    """As an example there is the newest of them."""
    log = AlertLog({"hot": "warning"})
    for number in range(MOST_TRACKED + 3):
        log.trigger("hot", f"d-{number}", NIGHT + number)
    for number in range(MOST_TRACKED):
        log.suppress("hot", f"d-{number}", NIGHT + MINUTE)

    (digest,) = mails(log, (0, "ada", sleeper()))

    assert shown(digest) == [("hot", f"d-{MOST_TRACKED + 2}")]
    assert digest["counts"][0]["alerts"] == 3


def test_an_alert_of_a_rule_that_became_critical_does_not_wait_for_the_morning() -> None:
    """What the rule's alerts were before waits on."""
    severities = {"hot": "warning"}
    log = AlertLog(severities)
    log.trigger("hot", "d-0", NIGHT)
    severities["hot"] = "critical"
    log.trigger("hot", "d-1", NIGHT + MINUTE)
    log.trigger("hot", "d-2", NIGHT + MINUTE + 1)

    sent = mails(log, (0, "ada", sleeper()))

    assert [(each["decidedAt"], shown(each)) for each in sent] == [
        (NIGHT + MINUTE, [("hot", "d-1")]),
        (NIGHT + 2 * MINUTE, [("hot", "d-2")]),
        (MORNING, [("hot", "d-0")]),
    ]


def test_alerts_that_need_not_be_told_again_take_no_others_along() -> None:
    """The first wait as a step of the escalation, and are acknowledged; the later ones were never told."""
    settings = NotifySettings.model_validate({
        "matrix": SETTINGS.matrix, "tell": ["triggered"], "caps": {"email": [f"{MOST_ALERTS}/10m"]},
        "escalations": [{"name": "all", "severities": ["warning"], "steps": [{"after": "1m", "subscribers": True}]}],
    })  # fmt: skip
    log = AlertLog({"hot": "warning"})
    for number in range(MOST_ALERTS):
        log.trigger("hot", f"d-{number}", NIGHT)
    for number in range(MOST_ALERTS):
        log.trigger("hot", f"e-{number}", NIGHT + 2 * MINUTE)
    for number in range(MOST_ALERTS):
        log.acknowledge("hot", f"d-{number}", NIGHT + 2 * MINUTE + 1)

    sent = mails(log, (0, "ada", user(preferences={"subscribedDevices": ["*"]})), settings=settings)

    assert [each["kind"] for each in sent] == [*["alert"] * MOST_ALERTS, "digest"]
    assert shown(sent[-1]) == [("hot", f"e-{number}") for number in range(MOST_ALERTS)]


def test_a_person_who_wants_no_mail_any_more_gets_none_of_what_was_held() -> None:
    """Their newest preferences hold, and what was decided says so."""
    log = AlertLog({"damp": "info"})
    for number in range(3):
        log.trigger("damp", f"d-{number}", NIGHT + number)
    changes = (0, "ada", sleeper()), (NIGHT + MINUTE, "ada", sleeper(notifications={"email": False}))

    driven = World(SETTINGS, changes).run(log.records(), MORNING)

    assert outbox(driven) == []
    dropped = [each["data"] for each in events(driven) if each["data"]["status"] == "dropped"]
    assert [(each["decidedAt"], each["reasons"][-1]["code"]) for each in dropped] == [(MORNING, "preference")] * 3


def test_who_is_gone_in_the_morning_is_told_nothing() -> None:
    """A user that was deleted while something was held for them."""
    log = AlertLog({"hot": "warning"})
    log.trigger("hot", "d-0", NIGHT)

    driven = World(SETTINGS, [(0, "ada", sleeper()), (NIGHT + MINUTE, "ada", None)]).run(log.records(), MORNING)

    assert outbox(driven) == []
    assert events(driven)[-1]["data"]["reasons"][-1]["code"] == "user-inactive"


def test_new_quiet_hours_let_go_at_once_of_what_the_old_ones_held() -> None:
    """The next alert for that person takes along what waits."""
    log = AlertLog({"hot": "warning"})
    log.trigger("hot", "d-0", NIGHT)
    log.trigger("hot", "d-1", NIGHT + 5 * MINUTE)
    changes = (0, "ada", sleeper()), (NIGHT + MINUTE, "ada", sleeper(quietHours=None))

    (digest,) = mails(log, *changes)

    assert (digest["kind"], digest["decidedAt"]) == ("digest", NIGHT + 5 * MINUTE)
    assert shown(digest) == [("hot", "d-0"), ("hot", "d-1")]
