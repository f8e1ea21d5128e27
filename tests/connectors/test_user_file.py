"""Files of users: every form, other spellings, and what is wrong with its line."""

import gzip
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.user_file import user_document, user_rows
from headrace.engine.errors import ConfigError
from headrace.schemas.user import User, encode_user
from headrace.schemas.user_mistakes import check_user

#: As the specification of the service has it.
PROFILE = {
    "userId": "user-456", "email": "john.doe@example.com", "name": "John Doe", "organizationId": "org-789",
    "role": "operator",
    "preferences": {
        "notifications": {"email": True, "push": True, "sms": False},
        "quietHours": {"enabled": True, "start": "22:00", "end": "08:00", "timezone": "America/New_York"},
        "theme": "dark", "language": "en", "dashboardLayout": {"left_side": 1},
    },
    "deviceTokens": ["fcm-token-123"], "createdAt": "2025-01-15T10:00:00Z",
}  # fmt: skip
ADA: dict[str, Any] = {
    "userId": "ada", "timezone": "Europe/Berlin",
    "preferences": {"quietHours": {"start": "21:00"}, "subscribedDevices": ["d-1", "d-2"]},
    "onCall": [{"team": "plant", "start": "2026-01-05T08:00:00", "hours": 168}],
}  # fmt: skip
TOML = """
[[user]]
user_id = "ada"
timezone = "Europe/Berlin"
subscribed_devices = ["d-1", "d-2"]
quiet_hours = { start = "21:00" }
[[user.on_call]]
team = "plant"
start = 2026-01-05T08:00:00
hours = 168
[[user]]
id = "bob"
"""
CSV = (
    "id;timezone;quiet hours.start;devices;on_call\n"
    'ada;Europe/Berlin;21:00;d-1, d-2;"[{""team"": ""plant"", ""start"": ""2026-01-05T08:00:00"", ""hours"": 168}]"\n'
    "bob;;;;\n"
)


def read(path: Path) -> list[tuple[int, User]]:
    """Lines and users; there is nothing wrong."""
    found = []
    for row in user_rows(path):
        assert not row.mistake
        user, wrong = check_user(row.document)
        assert wrong == []
        assert user is not None
        found.append((row.line, user))
    return found


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("users.toml", TOML, [2, 11]),
        ("users.csv", CSV, [2, 3]),
        ("users.json", orjson.dumps([ADA, {"userId": "bob"}]).decode(), [1, 1]),
        ("users.ndjson", orjson.dumps(ADA).decode() + '\n\n{"user_id": "bob"}\n', [1, 3]),
        (
            "users.tsv",
            "id\ttimezone\tquiet_hours.start\tdevices\tshifts\n"
            'ada\tEurope/Berlin\t21:00\td-1|d-2\t[{"team": "plant", "start": "2026-01-05T08:00:00", "hours": 168}]\n'
            "bob\t\t\t\t\n",
            [2, 3],
        ),
        ("users.toml.gz", TOML, [2, 11]),
    ],
)
def test_every_form_holds_the_same_users(tmp_path: Path, name: str, text: str, lines: list[int]) -> None:
    """With the line on which each begins."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    assert read(path) == list(zip(lines, [User.model_validate(ADA), User(user_id="bob")], strict=True))


def test_a_profile_of_the_service_is_read() -> None:
    """Its language is the user's, its times are ms, what the dashboard keeps is left as it is."""
    user, wrong = check_user(user_document(PROFILE))

    assert wrong == []
    assert user is not None
    assert (user.language, user.created_at, user.device_tokens[0].token) == ("en", 1_736_935_200_000, "fcm-token-123")
    assert user.preferences.dashboard_layout == {"left_side": 1}
    assert not user.preferences.notifications.sms


SUBSCRIPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.text("ab;, ", min_size=1, max_size=4), max_size=2),
        "channels": st.lists(st.sampled_from(["email", "sms"]), unique=True),
    },
)
USERS = st.fixed_dictionaries(
    {"user_id": st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)},
    optional={
        "name": st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
        "active": st.booleans(),
        "language": st.sampled_from(["de", "en-GB"]),
        "created_at": st.integers(0, 2**40),
        "on_call": st.just(ADA["onCall"]),
        "preferences": st.fixed_dictionaries(
            {},
            optional={
                "quiet_hours": st.sampled_from([{}, {"override": []}, {"enabled": False}]),
                "severities": st.dictionaries(st.sampled_from(["info", "critical"]), st.just(["email"])),
                "subscriptions": st.lists(SUBSCRIPTIONS, max_size=2),
                "dashboard_layout": st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.none()),
            },
        ),
    },
)


@given(document=USERS)
def test_what_is_written_reads_back(document: dict[str, Any]) -> None:
    """As the topic has it, and as an export writes it."""
    user = User.model_validate(document)

    assert check_user(user_document(orjson.loads(encode_user(user)))) == (user, [])


def test_every_mistake_of_a_user_is_told() -> None:
    """Where, what, and what was probably meant."""
    assert check_user(
        user_document({
            "userId": "a\nb", "mail": "ada", "phone": "0170", "language": "english!", "timezone": "Europe/Berlinn",
            "fone": "1", "quietHours": {"start": "10pm", "ends": "08:00"}, "devices": ["x"] * 10_001,
            "onCall": [{"team": "plant", "start": "2026-01-05T08:00:00Z", "hours": 0, "rule": "x"}],
        })
    )[1] == [
        "userId: must not hold control characters",
        "email: is no email address",
        "phone: must be a plus, country and number, as in +491701234567",
        "language: must be a language of BCP 47, as in en or de-AT",
        "timezone: there is no time zone 'Europe/Berlinn'; write an IANA name, as in Europe/Berlin",
        "preferences.quietHours.start: must be HH:MM, as in 22:00",
        "preferences.quietHours.ends: is not known; did you mean 'end'?",
        "preferences.subscribedDevices: must have at most 10,000",
        "onCall.0.hours: must be a minute (0.02) to 366 days (8784)",
        "onCall.0.rule: is not known; did you mean 'rrule'?",
        "fone: is not known; did you mean 'phone'?",
    ]  # fmt: skip
    assert check_user([])[1]


@pytest.mark.parametrize(
    "written", ["+49 170 1234567", "+49 (170) 123-45.67", "+49/170/1234567", "+49\u00a01701234567"]
)
def test_a_number_may_be_written_for_people(written: str) -> None:
    """Spaces, brackets, dashes, dots and slashes are left out."""
    assert user_document({"id": "a", "mobile": written})["phone"] == "+491701234567"


@pytest.mark.parametrize("written", ["0170 1234567", "+49 (0)170 1234567", "1701234567", "+49170123456789012", "no"])
def test_a_number_that_may_mean_two_is_refused(written: str) -> None:
    """Without its country it is none; of a (0) in it nobody knows."""
    assert check_user(user_document({"id": "a", "phone": written}))[1] == [
        "phone: must be a plus, country and number, as in +491701234567"
    ]


def test_cells_that_should_have_parts_say_what_they_must_be() -> None:
    """In words of files, not of Python."""
    row = {"id": "a", "subscriptions": '[{"tags" 1}]', "active": "maybe", "role": "boss", "quietHours": "ten"}

    assert check_user(user_document(row))[1] == [
        "role: must be 'super_admin', 'org_admin', 'operator' or 'viewer'",
        "active: must be true or false",
        "preferences.quietHours: must be an object, in a cell or on the command line as JSON",
        "preferences.subscriptions: must be a list, in a cell or on the command line as JSON",
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("u.csv", "id,fone\na,b\n", "line 1: no user has 'fone'; did you mean 'phone'?"),
        ("u.csv", "id,userId\na,b\n", "line 1: 'id', 'userId' say the same"),
        ("u.csv", "", "no header: the first line names the columns, such as id,name"),
        ("u.toml", "[[user]\n", "not TOML"),
        ("u.yaml", "user: []\n", "not a form that is read; save it as CSV"),
        ("u.XLSX", "PK", "not a form that is read; save it as CSV"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    """Before anything is looked at."""
    (tmp_path / name).write_text(text)

    with pytest.raises(ConfigError, match=re.escape(said)):
        list(user_rows(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("u.toml", 'a = 1\n[[user]]\nid = "a"\n', "a: unknown; write a table [[user]] for each"),
        ("u.toml", '[[users]]\nid = "a"\n', "users: unknown; write a table [[user]] for each; did you mean 'user'?"),
        ("u.toml", '[user]\nid = "a"\n', "write a table [[user]] for each"),
        ("u.ndjson", "[1", "not JSON"),
        ("u.ndjson", "7", "not a JSON object"),
        ("u.json", '{"users": [{"id": "a"}]}', "a JSON object with 'users'; leave only what is in it"),
        ("u.json", '{\n"user": [\n{"id": "a"}]}', "a JSON object with 'user'; leave only what is in it"),
        ("u.json", '{\n"id": "a"\n}\n', "one JSON object over many lines; write a list"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    """In its place, so that the others are looked at."""
    (tmp_path / name).write_text(text)

    assert any(said in row.mistake for row in user_rows(tmp_path / name))
