"""Webhooks as Standard Webhooks (1.0) describes them: an event is posted, signed, and the same id marks a repeat."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

import aiohttp

from headrace.connectors.notifications.channel import Message, Refused, Sent
from headrace.connectors.notifications.http_client import HttpClient, host
from headrace.connectors.notifications.integration_settings import WebhookIntegration
from headrace.connectors.notifications.settings import WebhookSettings
from headrace.connectors.notifications.webhook_event import CONTENT_TYPE, webhook_event
from headrace.connectors.notifications.webhook_key import webhook_key
from headrace.engine.clock import Clock


class WebhookChannel:
    """Posts each notification to the address that its contact is, or the integration of that name has.

    At least once; a receiver tells repeats by `webhook-id`. Connects to public addresses alone, and to the networks
    that the operator names; follows no redirect.

    Args:
        settings: of webhooks.
        integrations: by name.
        clock: of the timestamp that is signed.
        resolver: of names; the system's if None.
    """

    name = "webhook"
    idempotent = True

    def __init__(
        self,
        settings: WebhookSettings,
        integrations: Mapping[str, WebhookIntegration],
        clock: Clock,
        resolver: aiohttp.abc.AbstractResolver | None = None,
    ) -> None:
        self.at_once = settings.requests
        self._timeout = settings.timeout
        self._clock = clock
        self._integrations = integrations
        self._keys = _keys(settings)
        self._client = HttpClient(
            clock,
            connections=settings.requests,
            networks=settings.networks(),
            resolver=resolver,
        )

    async def send(self, message: Message) -> Sent:
        """Post it; see `Channel.send`."""
        url, keys, timeout = self._target(message.contact)
        body = webhook_event(message.notification, message.content)
        identity, moment = message.notification.notificationId, str(self._clock.now_ms() // 1000)
        headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "headrace", "webhook-id": identity}
        headers["webhook-timestamp"] = moment
        if keys:
            headers["webhook-signature"] = signature(keys, identity, moment, body)
        answer = await self._client.post(url, body, headers, timeout)
        self._client.judge(answer, host(url))
        return Sent(None, delivered=True)

    def _target(self, contact: str) -> tuple[str, Sequence[bytes], float]:
        found = self._integrations.get(contact)
        if found is not None:
            return found.url, _keys(found) or self._keys, found.timeout
        if not contact.startswith(("https://", "http://")):
            raise Refused(f"there is no integration {contact!r} of kind webhook in [channels.integrations]")
        return contact, self._keys, self._timeout

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()


def signature(keys: Sequence[bytes], identity: str, moment: str, body: bytes) -> str:
    """The header `webhook-signature`: one signature per key, of id, seconds since 1970 and body."""
    signed = b".".join((identity.encode(), moment.encode(), body))
    made = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return " ".join(f"v1,{each}" for each in made)


def _keys(settings: WebhookSettings | WebhookIntegration) -> tuple[bytes, ...]:
    found = (settings.secret, settings.old_secret)
    return tuple(webhook_key(each.get_secret_value()) for each in found if each is not None)
