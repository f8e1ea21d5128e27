"""Sparkplug B in the bridge: what it needs, and what goes through it."""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from headrace.cli.running import Mistakes
from headrace.cli.settings import Settings
from headrace.connectors.mqtt.host_state import HostState
from headrace.connectors.mqtt.listener import MqttListener, RoutingIntake
from headrace.connectors.mqtt.source import MqttSource
from headrace.connectors.sparkplug.intake import SparkplugIntake
from headrace.connectors.sparkplug.routing import SparkplugRouting
from headrace.connectors.topic_profile import TopicProfile
from headrace.engine.clock import Clock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError
from headrace.engine.file_lock import LockHeld, lock_file
from headrace.engine.intake import Intake
from headrace.engine.log import Log
from headrace.engine.metrics import Metrics


def _profile(settings: Settings) -> TopicProfile | None:
    return next((each for each in settings.profiles if each.format == "sparkplug"), None)


def check_sparkplug(settings: Settings, processes: int) -> None:
    """Look for what does not go with it, where there is a profile of it.

    Raises:
        ConfigError: all of that.
    """
    if _profile(settings) is None:
        return
    wrong = Mistakes()
    alone = "Sparkplug messages of an edge node have to come to one process, in order"
    if processes > 1:
        wrong.add(f"--processes: {alone}; take them with one, and other topics with a configuration of their own")
    if settings.mqtt.share is not None:
        wrong.add(f"mqtt.share: {alone}; leave it out")
    if settings.sparkplug.host_id is not None and settings.mqtt.schedule is not None:
        wrong.add("sparkplug.host_id: a host that comes by mqtt.schedule would be gone most of the time; leave one out")
    wrong.check()


async def with_sparkplug(
    settings: Settings,
    routed: RoutingIntake,
    log: Log | None,
    data: Path | None,
    stack: AsyncExitStack,
    clock: Clock,
    metrics: Metrics,
) -> tuple[RoutingIntake, SparkplugIntake | None]:
    """The way of all messages, and of Sparkplug's if there is a profile of it; its topic is made.

    On Kafka a process that did the same until now cannot any more.

    Args:
        data: folder of the embedded log: two of these on it would each know half.
        stack: gives the folder back.
    Raises:
        ConfigError: another process has the folder.
    """
    profile = _profile(settings)
    if profile is None:
        return routed, None
    if data is not None and isinstance(log, EmbeddedLog):
        try:
            stack.enter_context(lock_file(data / "sparkplug.lock"))
        except LockHeld as error:
            raise ConfigError(
                f"--data: a bridge takes Sparkplug messages into {data} already, process {error.owner}: stop it, "
                "or leave the profile with format sparkplug out here"
            ) from error
    assert log is not None
    await log.create_topics(SparkplugIntake.topic_specs())
    sparkplug = SparkplugIntake(settings.sparkplug, profile, Intake(log, clock, metrics), log, clock, metrics)
    await sparkplug.start()
    return SparkplugRouting(sparkplug, routed), sparkplug


def ask_through(sparkplug: SparkplugIntake | None, sources: Iterable[object]) -> list[SparkplugIntake]:
    """Let requests to edge nodes go out where their messages come in; the intake, which is to run beside these."""
    if sparkplug is None:
        return []
    sparkplug.commands += [each.command for each in sources if isinstance(each, MqttListener | MqttSource)]
    return [sparkplug]


def host_state(settings: Settings, clock: Clock) -> HostState | None:
    """What we say of ourselves, where Sparkplug is spoken and we are a primary host."""
    host_id = settings.sparkplug.host_id
    return None if host_id is None or _profile(settings) is None else HostState(host_id, clock)
