"""Pushes: Firebase's HTTP v1 with its token exchange, and ntfy."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import jsonschema
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from headrace.connectors.notifications.channel import ContactGone, Refused, SendLater
from headrace.connectors.notifications.fcm import SCOPE
from headrace.connectors.notifications.push import PushChannel
from headrace.connectors.notifications.push_settings import PushSettings
from headrace.engine.clock import SteppedClock
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import HttpReceiver, Received

NOW = 1_763_201_103_000
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _strict(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


#: `messages:send` of FCM HTTP v1: the fields that are used, of the types that its reference gives them.
SCHEMA = _strict(
    {
        "message": _strict(
            {
                "token": _TEXT,
                "notification": _strict({"title": _TEXT, "body": _TEXT}),
                "data": _TEXTS,
                "android": _strict(
                    {
                        "priority": {"enum": ["NORMAL", "HIGH"]},
                        "ttl": {"type": "string", "pattern": r"^\d+s$"},
                        "notification": _strict({"tag": _TEXT}),
                    }
                ),
                "apns": _strict({"headers": _TEXTS, "payload": {"type": "object", "required": ["aps"]}}),
                "webpush": _strict(
                    {
                        "headers": _TEXTS,
                        "notification": {"type": "object"},
                        "fcm_options": _strict({"link": {"type": "string", "pattern": "^https://"}}),
                    }
                ),
            },
            "token",
        )
    },
    "message",
)


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


class Firebase:
    """Google's token endpoint and Firebase, as strict as theirs.

    Args:
        key: of the service account.
    """

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key
        self.tokens = 0
        self.pushes: list[dict[str, Any]] = []
        self.errors: list[tuple[int, dict[str, Any]]] = []
        self.revoked: set[str] = set()

    async def __call__(self, received: Received) -> web.StreamResponse:
        if received.path == "/token":
            return self._token(received)
        assert received.path == "/v1/projects/iot-1/messages:send"
        bearer = received.headers["Authorization"].removeprefix("Bearer ")
        if bearer != f"token-{self.tokens}" or bearer in self.revoked:
            return web.json_response({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, status=401)
        if self.errors:
            status, error = self.errors.pop(0)
            return web.json_response({"error": error}, status=status, headers={"Retry-After": "90"})
        body = json.loads(received.body)
        wrong = [each.message for each in jsonschema.Draft202012Validator(SCHEMA).iter_errors(body)]
        push = body["message"]
        size = sum(len(str(each).encode()) for each in (push["notification"], push["data"]))
        if wrong or size > 4096 or len(push["apns"]["headers"]["apns-collapse-id"].encode()) > 64:
            return web.json_response({"error": {"status": "INVALID_ARGUMENT", "message": str(wrong)}}, status=400)
        self.pushes.append(push)
        return web.json_response({"name": f"projects/iot-1/messages/{len(self.pushes)}"})

    def _token(self, received: Received) -> web.Response:
        form = parse_qs(received.body.decode())
        signed, _, signature = form["assertion"][0].rpartition(".")
        header, claims = (json.loads(_decoded(each)) for each in signed.split("."))
        self._key.public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), hashes.SHA256())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        assert header == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
        assert (claims["iss"], claims["scope"]) == ("push@iot-1.example", SCOPE)
        assert claims["aud"].endswith("/token")
        assert claims["exp"] - claims["iat"] == 3600
        self.tokens += 1
        answer = {"access_token": f"token-{self.tokens}", "expires_in": 3599, "token_type": "Bearer"}
        return web.json_response(answer)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def opened(key: RSAPrivateKey, url: str, **changed: Any) -> tuple[PushChannel, SteppedClock]:
    """A channel to a Firebase on loopback, and its clock; close it."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "project_id": "iot-1",
        "client_email": "push@iot-1.example",
        "private_key_id": "key-1",
        "private_key": private.decode(),
        "token_uri": f"{url}/token",
    }
    clock = SteppedClock(NOW)
    return PushChannel(PushSettings(fcm_credentials=json.dumps(account), fcm_url=url, **changed), clock), clock


async def test_push_is_what_firebase_takes(key: RSAPrivateKey) -> None:
    """Title, text, links, and one place on the screen per alert: the end has the tag of the begin."""
    firebase = Firebase(key)
    async with HttpReceiver(firebase).running() as receiver:
        channel, _ = opened(key, receiver.url)
        done = await channel.send(message("android:token-a"))
        await channel.send(message("ios:token-b", "resolved"))
        await channel.close()

    begin, end = firebase.pushes
    assert done.provider_id == "projects/iot-1/messages/1"
    assert begin["token"] == "token-a"
    assert begin["notification"]["title"] == "[WARNING] High temperature at Office 301"
    assert begin["webpush"]["fcm_options"]["link"] == "https://iot.example.com/alerts/alert-123"
    assert begin["android"]["notification"]["tag"] == end["apns"]["headers"]["apns-collapse-id"]
    assert begin["data"]["alertId"] == "alert-123"


async def test_token_of_google_is_kept_until_it_expires(key: RSAPrivateKey) -> None:
    """One for many pushes; a new one before its end, and when it was revoked."""
    firebase = Firebase(key)
    async with HttpReceiver(firebase).running() as receiver:
        channel, clock = opened(key, receiver.url)
        for _ in range(3):
            await channel.send(message("android:a"))
        assert firebase.tokens == 1
        clock.advance(3_590_000)
        await channel.send(message("android:a"))
        assert firebase.tokens == 2
        firebase.revoked.add("token-2")
        await channel.send(message("android:a"))
        await channel.close()

    assert firebase.tokens == 3
    assert len(firebase.pushes) == 5


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (404, {"details": [{"errorCode": "UNREGISTERED"}]}, ContactGone),
        (403, {"details": [{"errorCode": "SENDER_ID_MISMATCH"}]}, ContactGone),
        (400, {"status": "INVALID_ARGUMENT", "message": "not a valid FCM registration token"}, ContactGone),
        (
            400,
            {"status": "INVALID_ARGUMENT", "details": [{"fieldViolations": [{"field": "message.token"}]}]},
            ContactGone,
        ),
        (400, {"status": "INVALID_ARGUMENT", "message": "invalid data"}, Refused),
        (404, {"status": "NOT_FOUND"}, Refused),
        (403, {"status": "PERMISSION_DENIED"}, SendLater),
        (429, {"details": [{"errorCode": "QUOTA_EXCEEDED"}]}, SendLater),
        (503, {"details": [{"errorCode": "UNAVAILABLE"}]}, SendLater),
        (500, {"details": "?"}, SendLater),
    ],
)
async def test_answer_of_firebase_says_what_comes_next(
    key: RSAPrivateKey, status: int, error: dict[str, Any], expected: type[Exception]
) -> None:
    """A dead token is told apart from a wrong message, and from a Firebase that is busy."""
    firebase = Firebase(key)
    firebase.errors.append((status, error))
    async with HttpReceiver(firebase).running() as receiver:
        channel, _ = opened(key, receiver.url)
        with pytest.raises(expected) as raised:
            await channel.send(message("android:a"))
        await channel.close()

    assert type(raised.value) is expected
    if status in (429, 503):
        assert raised.value.after == 90  # type: ignore[attr-defined]


async def test_google_that_gives_no_token_is_for_later(key: RSAPrivateKey) -> None:
    """The text says where to look."""
    async with HttpReceiver(400).running() as receiver:
        channel, _ = opened(key, receiver.url)
        with pytest.raises(SendLater, match="fcm_credentials"):
            await channel.send(message("android:a"))
        await channel.close()


async def test_long_texts_fit(key: RSAPrivateKey) -> None:
    """Names of the greatest length in letters of many bytes stay below Firebase's 4,096 bytes."""
    firebase = Firebase(key)
    long = message("android:a")
    subject = long.notification.subjects[0]
    alert = subject.alert.model_copy(update={"alertId": "警" * 200, "deviceId": "警" * 200, "condition": "警" * 2000})
    subjects = (subject.model_copy(update={"alert": alert}),)
    from tests.connectors.notifications.messages import RENDERER

    notification = long.notification.model_copy(update={"subjects": subjects})
    async with HttpReceiver(firebase).running() as receiver:
        channel, _ = opened(key, receiver.url)
        await channel.send(long._replace(notification=notification, content=RENDERER.render(notification)))
        await channel.close()

    assert len(firebase.pushes) == 1


async def test_ntfy_gets_title_text_link_and_priority() -> None:
    """On the operator's server, with the operator's token."""

    async def publish(received: Received) -> web.StreamResponse:
        return web.json_response({"id": "n1"})

    async with HttpReceiver(publish).running() as receiver:
        channel = PushChannel(PushSettings(ntfy_url=receiver.url, ntfy_token="tk_1"), SteppedClock())
        done = await channel.send(message("ntfy:alerts-ada", severity="critical"))
        await channel.close()

    (received,) = receiver.received
    body = json.loads(received.body)
    assert received.path == "/"
    assert received.headers["Authorization"] == "Bearer tk_1"
    assert (body["topic"], body["priority"]) == ("alerts-ada", 5)
    assert body["title"] == "[CRITICAL] High temperature at Office 301"
    assert body["click"] == "https://iot.example.com/alerts/alert-123"
    assert done.provider_id == "n1"


async def test_servers_that_users_name_get_no_token_and_are_public() -> None:
    """A topic's whole address may lead anywhere but to this machine, and the operator's token stays at home."""
    async with HttpReceiver(200).running() as own, HttpReceiver(200).running() as other:
        from ipaddress import ip_network

        settings = PushSettings(ntfy_url=own.url, ntfy_token="tk_1")
        closed = PushChannel(settings, SteppedClock())
        with pytest.raises(Refused, match="not public"):
            await closed.send(message(f"ntfy:{other.url}/mine"))
        await closed.close()
        channel = PushChannel(settings, SteppedClock(), (ip_network("127.0.0.0/8"),))
        await channel.send(message(f"ntfy:{other.url}/mine"))
        await channel.close()

    (received,) = other.received
    assert "Authorization" not in received.headers
    assert own.received == []


@pytest.mark.parametrize(
    "contact",
    [
        "ntfy:a/b",
        "ntfy:",
        "ntfy:../../x",
        "ntfy:http:///x",
        "ntfy:ftp://h/x",
        "android:",
        "blackberry:x",
        "android:x",
        "",
    ],
)
async def test_contact_that_is_none_is_refused(contact: str) -> None:
    """Each with what it should be, or what is missing in the configuration."""
    async with HttpReceiver(200).running() as receiver:
        channel = PushChannel(PushSettings(ntfy_url=receiver.url), SteppedClock())
        with pytest.raises(Refused):
            await channel.send(message(contact))
        await channel.close()

    assert receiver.received == []
