"""Users, alerts and moments for tests of who is told what."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from headrace.schemas.alert import Alert
from headrace.schemas.notification import Place, Subject
from headrace.schemas.user import User

#: With both kinds of changes of the clocks, of an hour and of half an hour; with none; with rules that changed often;
#: and with a day that never was.
ZONES = (
    "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia",
)  # fmt: skip
MINUTE_MS = 60_000


def user(user_id: str = "ada", **fields: Any) -> User:
    """Somebody whom every channel reaches."""
    contacts = {"email": f"{user_id}@example.com", "phone": "+491701234567", "device_tokens": ["token-1"]}
    return User.model_validate({"user_id": user_id, **contacts, **fields})


def subject(tags: tuple[str, ...] = (), **fields: Any) -> Subject:
    """A warning about the device d-1, behind the gateway gw-1."""
    alert = {
        "alertId": "a-1", "revision": 1, "ruleId": "hot", "ruleName": "Hot", "deviceId": "d-1", "gatewayId": "gw-1",
        "deviceType": "environmental", "severity": "warning", "status": "triggered", "condition": "temperature > 40",
        "metric": "temperature", "triggeredAt": 0, "groupKey": "g",
    }  # fmt: skip
    return Subject(alert=Alert.model_validate({**alert, **fields}), place=Place(tags=tags))


def at(text: str, zone: str = "UTC", *, fold: int = 0) -> int:
    """A wall-clock time in ms since 1970 UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def clock(zone: str, at_ms: int) -> datetime:
    """What the wall clock of a zone shows, without zone."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).replace(tzinfo=None)


def changes(zone: str, first_year: int, last_year: int) -> list[int]:
    """Every minute (ms) in which the offset of a zone is another one than in the minute before it."""
    found = []
    hour = 60 * MINUTE_MS
    for start in range(at(f"{first_year}-01-01"), at(f"{last_year}-01-01"), 24 * hour):
        if _offset(zone, start) != _offset(zone, start + 24 * hour):
            inside = range(start, start + 24 * hour, MINUTE_MS)
            found += [each + MINUTE_MS for each in inside if _offset(zone, each) != _offset(zone, each + MINUTE_MS)]
    return found


def _offset(zone: str, at_ms: int) -> object:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).utcoffset()
