"""HTTP ingest as the configuration wants it, with what it needs of agents and database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from headrace.agents.payload_judge import PayloadJudge
from headrace.cli.agents import GROUP
from headrace.cli.opened_database import opened_database
from headrace.cli.running import Setup
from headrace.connectors.http.singles import API_DATA
from headrace.connectors.http.source import HttpSource
from headrace.connectors.http.stored_values import StoredValues
from headrace.connectors.topic_routes import TopicRoutes
from headrace.engine.clock import SystemClock
from headrace.engine.intake import Intake
from headrace.engine.log import Log
from headrace.engine.monitoring import Monitoring


@asynccontextmanager
async def http_source(
    setup: Setup, data: Path | None, log: Log, monitoring: Monitoring, target: str
) -> AsyncIterator[HttpSource]:
    """The source, ready to run; the database that it asks is open no longer than the `async with`.

    Args:
        target: where messages go, for people, who are told when the port is open.
    """
    settings, clock = setup.settings, SystemClock()
    collector = setup.device_types.get(API_DATA[0])
    values = None
    if collector is not None:
        values = StoredValues(lambda: opened_database(settings, data), collector, clock)

    def tell(port: int) -> None:
        where = settings.http.model_copy(update={"port": port}).where
        click.echo(f"http: {where} into {target}; Ctrl-C stops", err=True)

    try:
        yield HttpSource(
            settings.http,
            Intake(log, clock, monitoring.metrics),
            log,
            PayloadJudge(setup.device_types, settings.ingest, clock),
            TopicRoutes(settings.profiles),
            setup.device_types,
            GROUP,
            clock,
            values=values,
            metrics=monitoring.metrics,
            health=monitoring.health,
            on_listening=tell,
        )
    finally:
        if values is not None:
            await values.close()
