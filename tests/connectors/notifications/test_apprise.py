"""Apprise: what the services behind it get, over real HTTP."""

import json
from typing import Any

import pytest

from headrace.connectors.notifications.apprise_channel import AppriseChannel
from headrace.connectors.notifications.channel import Refused, SendLater
from headrace.connectors.notifications.integration_settings import AppriseIntegration
from headrace.engine.errors import ConfigError
from tests.connectors.notifications.messages import message
from tests.connectors.notifications.receivers import HttpReceiver


def opened(receiver: HttpReceiver, **changed: Any) -> AppriseChannel:
    """A channel whose integration `ops` is Apprise's JSON service; close it."""
    url = receiver.url.replace("http://", "json://") + "/hook"
    return AppriseChannel({"ops": AppriseIntegration(kind="apprise", url=url, **changed)})


async def test_service_gets_title_and_text() -> None:
    """As they are, without the name of a device becoming markup."""
    async with HttpReceiver(200).running() as receiver:
        channel = opened(receiver)
        await channel.send(message("ops"))
        await channel.close()

    (received,) = receiver.received
    body = json.loads(received.body)
    assert body["title"] == "[WARNING] High temperature at Office 301"
    assert "Current Value: 32.5°C" in body["message"]
    assert body["type"] == "warning"


async def test_failure_is_for_later() -> None:
    """With what the service said."""
    async with HttpReceiver(500).running() as receiver:
        channel = opened(receiver)
        with pytest.raises(SendLater, match=r"did not take it.*500"):
            await channel.send(message("ops"))
        with pytest.raises(Refused, match="no integration 'other'"):
            await channel.send(message("other"))
        await channel.close()


def test_url_that_apprise_does_not_know_is_told_at_start() -> None:
    """Every one of them, without the secrets in it."""
    wrong = {name: AppriseIntegration(kind="apprise", url=f"nosuch://geheim-{name}") for name in ("a", "b")}

    with pytest.raises(ConfigError) as raised:
        AppriseChannel(wrong)

    assert len(raised.value.mistakes) == 2
    assert "geheim" not in str(raised.value)
