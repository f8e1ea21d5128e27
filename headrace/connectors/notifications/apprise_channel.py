"""Slack, Teams, Telegram and about 120 other services, by Apprise."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from headrace.connectors.notifications.channel import Message, Refused, SendLater, Sent
from headrace.connectors.notifications.integration_settings import AppriseIntegration
from headrace.engine.errors import ConfigError

if TYPE_CHECKING:
    from apprise import Apprise

#: Words of Apprise for how it looks.
_LOOKS = {"info": "info", "warning": "warning", "critical": "failure"}
#: Seconds until the next try: Apprise does not tell a wrong token from a busy server.
WAIT = 10.0


class AppriseChannel:
    """Sends by the URL of the integration that the contact names, in a thread.

    At least once; Apprise knows no key of a repeat. It says only whether it worked: every failure may pass.

    Args:
        integrations: by name.
    Raises:
        ConfigError: apprise is not installed, or does not know a URL; every mistake.
    """

    name = "apprise"
    idempotent = False
    at_once = 4

    def __init__(self, integrations: Mapping[str, AppriseIntegration]) -> None:
        try:
            from apprise import Apprise, AppriseAsset  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError("integrations of kind apprise need it: pip install headrace[apprise]") from error
        # Nothing of ours is looked at for emojis or escapes, and nothing is kept on the disk.
        asset = AppriseAsset(app_id="headrace", app_desc="headrace", storage_mode="memory", interpret_emojis=False)
        self._integrations = integrations
        self._services: dict[str, Apprise] = {}
        wrong = []
        for name, each in integrations.items():
            self._services[name] = Apprise(asset=asset)
            if not self._services[name].add(each.url.get_secret_value()) or len(self._services[name]) != 1:
                wrong.append(f"[channels.integrations.{name}] url: Apprise knows no such service, or it is not whole")
        if wrong:
            raise ConfigError(*wrong)
        self._threads = ThreadPoolExecutor(self.at_once, "apprise")

    async def send(self, message: Message) -> Sent:
        """Send it; see `Channel.send`. Cancelled, it may still be sent."""
        service = self._services.get(message.contact)
        if service is None:
            raise Refused(f"there is no integration {message.contact!r} of kind apprise in [channels.integrations]")
        loop = asyncio.get_running_loop()
        timeout = self._integrations[message.contact].timeout
        failure = await loop.run_in_executor(self._threads, _notify, service, message, timeout)
        if failure is not None:
            raise SendLater(failure, WAIT)
        return Sent(None)

    async def close(self) -> None:
        """Wait for what is being sent; Apprise's own timeouts end it."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)


def _notify(service: "Apprise", message: Message, timeout: float) -> str | None:
    """Why it failed, without the URL."""
    notification, content = message.notification, message.content
    looks = "success" if notification.kind == "resolved" else _LOOKS[notification.severity]
    done = service.notify(
        body=content.text,
        title=content.title,
        notify_type=looks,
        body_format="text",
        interpret_escapes=False,
        timeout=timeout,
    )
    if done:
        return None
    said = "; ".join(str(entry.message) for entry in done.logs())
    return f"{service[0].service_name} did not take it: {said or 'no reason given'}"[:500]
