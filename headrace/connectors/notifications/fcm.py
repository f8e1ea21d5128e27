"""Firebase Cloud Messaging, HTTP v1: pushes to apps on Android and iOS, and to browsers."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import orjson

from headrace.connectors.notifications.channel import ContactGone, Message, Refused, SendLater, Sent
from headrace.connectors.notifications.http_client import UNMENDED, Answer, HttpClient
from headrace.connectors.notifications.push_settings import PushSettings
from headrace.engine.clock import Clock
from headrace.engine.errors import ConfigError

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
TOKEN_URL = "https://oauth2.googleapis.com/token"
#: Seconds that a token request is good for, and before whose end a token is not used any more.
ASSERTION = 3600
SPARE = 120
#: Of Firebase: bytes of data and notification together (4,096, some of them to spare); of text what a phone shows.
MOST_BYTES = 3800
MOST_TEXT = 1200
#: Seconds that a phone without a network may be told later: yesterday's alert wakes nobody.
TIME_TO_LIVE = "86400s"


class Fcm:
    """Sends to registration tokens.

    At least once; a repeat takes the place of the first one on the screen, by tag.

    Args:
        settings: with credentials.
        client: of HTTP.
        clock: that tokens expire by.
    Raises:
        ConfigError: cryptography is not installed, or the private key is none.
    """

    def __init__(self, settings: PushSettings, client: HttpClient, clock: Clock) -> None:
        if settings.fcm_credentials is None:
            raise ConfigError("[channels.push] fcm_credentials is missing")
        account = orjson.loads(settings.fcm_credentials.get_secret_value())
        self._account = account["client_email"]
        self._key_id = account.get("private_key_id")
        self._token_url = str(account.get("token_uri") or TOKEN_URL)
        self._url = f"{settings.fcm_url.rstrip('/')}/v1/projects/{account['project_id']}/messages:send"
        self._sign = _signer(account["private_key"])
        self._timeout = settings.timeout
        self._client = client
        self._clock = clock
        self._token: tuple[str, float] = ("", 0.0)
        self._lock = asyncio.Lock()

    async def send(self, message: Message, token: str) -> Sent:
        """Hand it over; see `Channel.send`."""
        body = orjson.dumps({"message": _push(message, token)})
        answer = await self._client.post(self._url, body, await self._headers(), self._timeout)
        if answer.status == 401:
            # The token was revoked before its time: once more with a new one.
            self._token = ("", 0.0)
            answer = await self._client.post(self._url, body, await self._headers(), self._timeout)
        self._judge(answer)
        said = answer.json()
        return Sent(str(said["name"])[:200] if isinstance(said, dict) and "name" in said else None)

    async def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self._access()}", "Content-Type": "application/json"}

    async def _access(self) -> str:
        async with self._lock:
            token, until = self._token
            now = self._clock.now_ms() // 1000
            if now < until:
                return token
            claims = {"iss": self._account, "scope": SCOPE, "aud": self._token_url, "iat": now, "exp": now + ASSERTION}
            header = {"alg": "RS256", "typ": "JWT"} | ({"kid": self._key_id} if self._key_id else {})
            signed = f"{_encoded(orjson.dumps(header))}.{_encoded(orjson.dumps(claims))}"
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": f"{signed}.{_encoded(self._sign(signed.encode()))}",
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await self._client.post(self._token_url, urlencode(form).encode(), headers, self._timeout)
            said = answer.json()
            if answer.status != 200 or not isinstance(said, dict) or not isinstance(said.get("access_token"), str):
                raise SendLater(
                    f"Google gives no token ({answer.status} {answer.text()}): is the key of [channels.push] "
                    "fcm_credentials still there, and this machine's clock right?",
                    self._client.wait(answer, UNMENDED),
                )
            lasts = said.get("expires_in")
            lasts = lasts if isinstance(lasts, int) and lasts > 0 else ASSERTION
            self._token = (str(said["access_token"]), now + max(lasts - SPARE, 0))
            return self._token[0]

    def _judge(self, answer: Answer) -> None:
        if answer.status == 200:
            return
        code, fields = _error(answer)
        said = f"Firebase answered {answer.status} {code or ''}: {answer.text()}"
        bad_token = "message.token" in fields or "registration token" in answer.text()
        if code in ("UNREGISTERED", "SENDER_ID_MISMATCH") or (code == "INVALID_ARGUMENT" and bad_token):
            raise ContactGone(f"{said}; the app must register again")
        if answer.status == 429:
            raise SendLater(said, self._client.wait(answer, UNMENDED))
        if answer.status in (401, 403):
            remedy = (
                "the service account needs the role Firebase Cloud Messaging API Admin, and the API must be enabled"
            )
            raise SendLater(f"{said}; {remedy}", UNMENDED)
        if answer.status == 404:
            raise Refused(f"{said}; is project_id of [channels.push] fcm_credentials right?")
        self._client.judge(answer, "Firebase")


def _push(message: Message, token: str) -> dict[str, Any]:
    notification, content = message.notification, message.content
    alert = notification.subjects[0].alert
    # One place on the screen per alert: its end takes the place of its begin. No collapse key: Firebase keeps only four
    # of those per device while it is offline, and would drop alerts.
    tag = hashlib.sha256(notification.dedupKey.encode()).hexdigest()[:32]
    urgent = notification.severity != "info"
    data = {
        "notificationId": notification.notificationId,
        "kind": notification.kind,
        "severity": notification.severity,
        "alertId": alert.alertId[:200],
        "deviceId": alert.deviceId[:200],
        "link": (content.link or "")[:500],
    }
    webpush: dict[str, Any] = {"headers": {"Urgency": "high" if urgent else "normal", "TTL": TIME_TO_LIVE[:-1]}}
    webpush["notification"] = {"tag": tag}
    if content.link is not None and content.link.startswith("https://"):
        webpush["fcm_options"] = {"link": content.link}
    left = MOST_BYTES - len(orjson.dumps([data, webpush])) - len(content.title.encode())
    return {
        "token": token,
        "notification": {"title": content.title, "body": cut(content.text, min(MOST_TEXT, left))},
        "data": {name: value for name, value in data.items() if value},
        "android": {
            "priority": "HIGH" if urgent else "NORMAL",
            "ttl": TIME_TO_LIVE,
            "notification": {"tag": tag},
        },
        "apns": {
            "headers": {"apns-collapse-id": tag, "apns-priority": "10" if urgent else "5"},
            "payload": {"aps": {"sound": "default", "thread-id": tag}},
        },
        "webpush": webpush,
    }


def cut(text: str, most: int) -> str:
    """The beginning of `text` that takes `most` bytes of UTF-8, whole characters."""
    encoded = text.strip().encode()
    return text.strip() if len(encoded) <= most else encoded[: max(0, most - 3)].decode(errors="ignore") + "…"


def _error(answer: Answer) -> tuple[str | None, list[str]]:
    """Firebase's own code, and the fields that it finds wrong."""
    said = answer.json()
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict):
        return None, []
    details = [each for each in error.get("details") or () if isinstance(each, dict)]
    code = next((each["errorCode"] for each in details if "errorCode" in each), error.get("status"))
    violations = [each for detail in details for each in detail.get("fieldViolations") or () if isinstance(each, dict)]
    return str(code) if code else None, [str(each.get("field")) for each in violations]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signer(private_key: str) -> Callable[[bytes], bytes]:
    try:
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("Firebase needs cryptography: pip install headrace[push]") from error
    try:
        key = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError) as error:
        raise ConfigError("[channels.push] fcm_credentials: private_key is no key in PEM") from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError("[channels.push] fcm_credentials: private_key is no RSA key")
    return lambda data: key.sign(data, PKCS1v15(), hashes.SHA256())
