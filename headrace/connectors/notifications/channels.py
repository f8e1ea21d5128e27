"""All channels that the configuration switches on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from headrace.connectors.notifications.alertmanager import AlertmanagerChannel
from headrace.connectors.notifications.apprise_channel import AppriseChannel
from headrace.connectors.notifications.channel import Channel
from headrace.connectors.notifications.email import EmailChannel
from headrace.connectors.notifications.integration_settings import (
    AlertmanagerIntegration,
    AppriseIntegration,
    PagerDutyIntegration,
    WebhookIntegration,
)
from headrace.connectors.notifications.pagerduty import PagerDutyChannel
from headrace.connectors.notifications.push import PushChannel
from headrace.connectors.notifications.settings import ChannelsSettings
from headrace.connectors.notifications.sms import open_sms
from headrace.connectors.notifications.webhook import WebhookChannel
from headrace.engine.clock import Clock

Kind = TypeVar("Kind")


@asynccontextmanager
async def open_channels(settings: ChannelsSettings, clock: Clock) -> AsyncIterator[Mapping[str, Channel]]:
    """Channels by name for as long as the `async with` lasts; one that is not configured is not in it.

    Connects to nothing yet.

    Raises:
        ConfigError: what a channel needs is not installed, or its settings cannot be used.
    """
    async with AsyncExitStack() as stack:
        opened: dict[str, Channel] = {}

        def add(channel: Channel) -> None:
            stack.push_async_callback(channel.close)
            opened[channel.name] = channel

        add(WebhookChannel(settings.webhook, _of(settings, WebhookIntegration), clock))
        if settings.email.host is not None:
            add(EmailChannel(settings.email, clock))
        push = settings.push
        if push.fcm_credentials is not None or push.ntfy_url is not None:
            add(PushChannel(push, clock, settings.webhook.networks()))
        if settings.sms.enabled:
            add(await stack.enter_async_context(open_sms(settings.sms)))
        if pagerduty := _of(settings, PagerDutyIntegration):
            add(PagerDutyChannel(pagerduty, clock))
        if alertmanager := _of(settings, AlertmanagerIntegration):
            add(AlertmanagerChannel(alertmanager, clock))
        if apprise := _of(settings, AppriseIntegration):
            # It loads all its services: two seconds that nobody else should wait.
            add(await asyncio.to_thread(AppriseChannel, apprise))
        yield opened


def _of(settings: ChannelsSettings, kind: type[Kind]) -> dict[str, Kind]:
    return {name: each for name, each in settings.integrations.items() if isinstance(each, kind)}
