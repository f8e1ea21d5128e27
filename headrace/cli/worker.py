"""`headrace worker`: the agents, in one process or several."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import open_log, topic_specs
from headrace.cli.own_agents import own_agents, own_topics
from headrace.cli.running import Setup, config_arguments, config_option, finishes, set_up, stop_on_signals
from headrace.cli.workers import Workers
from headrace.engine.app import App
from headrace.engine.clock import SystemClock
from headrace.engine.collectors import Reads
from headrace.engine.embedded.lock import WorkerLock
from headrace.engine.errors import ConfigError, first
from headrace.engine.kafka.instance import instance_name
from headrace.engine.kafka.settings import SCHEME
from headrace.engine.log_time import note_clock
from headrace.engine.monitoring import Monitoring
from headrace.engine.operator import Operator

if TYPE_CHECKING:
    from headrace.cli.notify_service import NotifyService


@click.command()
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes to run.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder with the embedded log. Not needed where [log] url names a Kafka.",
)
@config_option
def worker(workers: int, data: Path | None, config: Path | None) -> None:
    """Run the agents on the log until Ctrl-C. Nothing is stored in a database: that is what `headrace sink` does.

    On a data folder it sends notifications too, where [channels] are configured; on Kafka `headrace notify` does.

    On Kafka, workers of all machines share the partitions. A worker that starts again within the session timeout gets
    its partitions back without the others noticing.
    """
    setup = set_up(config)
    on_kafka = setup.settings.log.url.startswith(SCHEME)
    if workers > 1 and not on_kafka:
        raise ConfigError("--workers: the embedded log takes one worker; name a Kafka as [log] url for more")
    if workers > 1:
        asyncio.run(_prepare(setup))
        asyncio.run(Workers([["worker", *config_arguments(config)]] * workers).run())
    elif on_kafka:
        _work_on_kafka(setup)
    else:
        _work_in_folder(setup, data)


async def _prepare(setup: Setup) -> None:
    """Find out before there are processes whether there is a Kafka, and make its topics."""
    log = await open_log(setup.settings, None, "workers")
    try:
        await log.create_topics(topic_specs(setup.settings))
    finally:
        await log.close()


def _work_on_kafka(setup: Setup) -> None:
    settings = setup.settings
    with instance_name(settings.kafka.instance, GROUP, settings.log.url) as name:
        kafka = settings.kafka.model_copy(update={"instance": name})
        number = int(name.rpartition("-")[2])
        asyncio.run(_work(setup._replace(settings=settings.model_copy(update={"kafka": kafka})), None, name, number))


def _work_in_folder(setup: Setup, data: Path | None) -> None:
    if data is None:
        raise ConfigError("--data is missing: name the data folder, or a Kafka as [log] url in --config")
    data.mkdir(parents=True, exist_ok=True)
    lock = WorkerLock(data)
    lock.acquire()
    try:
        asyncio.run(_work(setup, data, str(data)))
    finally:
        lock.release()


async def _work(setup: Setup, data: Path | None, name: str, index: int = 0) -> None:
    settings = setup.settings
    stop = stop_on_signals()
    monitoring = Monitoring(settings.monitor, index=index)
    log = await open_log(settings, data, "worker", monitoring)
    try:
        app = App(
            GROUP,
            log,
            clock=SystemClock(),
            runtime=settings.runtime,
            metrics=monitoring.metrics,
            health=monitoring.health,
        )
        agents = build_agents(settings, setup.device_types, setup.rules, monitoring.metrics)
        own = own_agents(settings)
        everyone: list[Operator] = [*agents, *(each.operator for each in own)]
        app.add(everyone)
        monitoring.answer_about(app, everyone)
        partitions = settings.log.partitions
        specs = [*topic_specs(settings), *own_topics(own, partitions)]
        # Takes as long as Kafka is away.
        if not await finishes(app.create_topics(specs, partitions=partitions), stop):
            return
        await note_clock(log, app.clock)
        for each in own:
            click.echo(str(each), err=True)
        click.echo(f"worker {name} on {settings.log.url}; Ctrl-C stops", err=True)
        service = None
        if data is not None and settings.channels.configured:
            from headrace.cli.notify_service import NotifyService  # noqa: PLC0415 - brings Jinja and all channels

            service = NotifyService(settings, data, log, app.clock, monitoring)
        reads = [Reads(GROUP, lambda: app.assigned), *([] if service is None else [service.reads])]
        monitoring.watch_lag(log, reads)
        async with monitoring:
            await _run(app, service, stop)
    finally:
        await log.close()


async def _run(app: App, service: "NotifyService | None", stop: asyncio.Event) -> None:
    """The agents, and delivery beside them where channels are configured; on Kafka `headrace notify` delivers."""
    if service is None:
        await app.run(stop)
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(app.run(stop))
            group.create_task(service.run(stop))
    except ExceptionGroup as errors:
        raise first(errors) from errors
