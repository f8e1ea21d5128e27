"""Subscribing, and what the broker must grant for it to be worth anything."""

from collections.abc import Sequence

from headrace.connectors.mqtt.codec.packets import Filter
from headrace.connectors.mqtt.codec.topic import SHARE
from headrace.connectors.mqtt.connection import MqttConnection
from headrace.engine.errors import ConfigError

#: From here on a reason code is a refusal.
REFUSED = 0x80
MOST_QOS = 2


async def subscribe(connection: MqttConnection, filters: Sequence[Filter], probe: str) -> bool:
    """Subscribe to `filters` as asked for, and to the probe's topic if there is one; whether it was granted.

    Raises:
        ConfigError: the broker refuses one of `filters`, or grants less than asked for.
        Disconnected: the connection broke.
    """
    _check_limits(connection, filters)
    asked = [*filters, *([Filter(probe)] if probe else [])]
    granted = await connection.subscribe(asked)
    refused = [each.name for each, reason in zip(filters, granted, strict=False) if reason >= REFUSED]
    if refused:
        raise ConfigError(f"the MQTT broker refuses to let us subscribe to {', '.join(refused)}")
    less = [(each, qos) for each, qos in zip(filters, granted, strict=False) if qos < each.qos]
    for each, qos in less:
        raise ConfigError(
            f"the MQTT broker grants QoS {qos} for {each.name}, not {each.qos}: set [mqtt] qos = {qos} if that will do"
        )
    return bool(probe) and granted[-1] < REFUSED


def _check_limits(connection: MqttConnection, filters: Sequence[Filter]) -> None:
    """What an MQTT 5 broker told us when we came; another limit would close the connection."""
    mistakes = []
    most = connection.limit("maximum_qos", MOST_QOS)
    if any(each.qos > most for each in filters):
        mistakes.append(f"the MQTT broker has no QoS above {most}: set [mqtt] qos = {most} if that will do")
    if any(each.name.startswith(SHARE) for each in filters) and not connection.limit(
        "shared_subscription_available", 1
    ):
        mistakes.append("the MQTT broker has no shared subscriptions: run one process, without [mqtt] share")
    if not connection.limit("wildcard_subscription_available", 1):
        mistakes.append("the MQTT broker has no subscriptions with wildcards, and there is no other way here")
    if mistakes:
        raise ConfigError(*mistakes)
