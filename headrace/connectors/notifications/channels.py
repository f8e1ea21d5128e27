"""All channels that the configuration switches on."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from headrace.connectors.notifications.channel import Channel
from headrace.connectors.notifications.email import EmailChannel
from headrace.connectors.notifications.integration_settings import (
    WebhookIntegration,
)
from headrace.connectors.notifications.settings import ChannelsSettings
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
        yield opened


def _of(settings: ChannelsSettings, kind: type[Kind]) -> dict[str, Kind]:
    return {name: each for name, each in settings.integrations.items() if isinstance(each, kind)}
