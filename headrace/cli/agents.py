"""The agents that ship, as the settings want them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace.agents.alerting.alerts import Alerts
from headrace.agents.detect import Detect, build_detect
from headrace.agents.enrich import registry_table
from headrace.agents.ingest import Ingest
from headrace.agents.ingest_priority import IngestPriority
from headrace.agents.notifying.dispatch import Dispatch
from headrace.agents.notifying.integrations import Integration
from headrace.agents.notifying.notify import Notify
from headrace.agents.quiet import Quiet
from headrace.agents.rollup import Rollup
from headrace.cli.settings import DetectSettings, Settings
from headrace.engine.metrics import Metrics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.rule import AlertRule
from headrace.tables.rule_book import rule_table
from headrace.tables.users import user_table

#: Consumer group of the agents.
GROUP = "headrace"


class Agents(NamedTuple):
    """One of each, in the order in which they are registered."""

    ingest: Ingest
    ingest_priority: IngestPriority
    rollup: Rollup
    detect: Detect
    alert: Alerts
    notify: Notify
    dispatch: Dispatch


def build_agents(
    settings: Settings,
    device_types: Mapping[str, DeviceType],
    rules: Sequence[AlertRule],
    metrics: Metrics | None = None,
) -> Agents:
    """New agents with empty tables."""
    cadences = {name: each.cadence for name, each in device_types.items() if each.cadence}
    detect, rollup = settings.detect, settings.rollup
    devices, users = registry_table(settings.ingest.enrich), user_table()
    return Agents(
        Ingest(device_types, settings.ingest, devices, metrics),
        IngestPriority(device_types, settings.ingest, devices),
        Rollup(
            rollup.kinds(),
            rollup.grace,
            cadences=cadences,
            aggregation=rollup.aggregation(),
            emit=rollup.emit,
            idle_timeout=rollup.idle_timeout or None,
        ),
        build_detect(detect.detectors, detector_parameters(detect), device_types, Quiet(seconds=detect.quiet)),
        Alerts(rules, rule_table(device_types)),
        Notify(settings.notify, users, device_types, integrations_of(settings)),
        Dispatch(settings.notify, users, integrations_of(settings)),
    )


def integrations_of(settings: Settings) -> list[Integration]:
    """The systems of `[channels.integrations]`, as deciding needs to know them."""
    return [
        Integration(name, each.kind, each.severities, each.organization_ids, each.tell)
        for name, each in settings.channels.integrations.items()
    ]


def detector_parameters(detect: DetectSettings) -> dict[str, dict[str, float]]:
    """Arguments of the detectors by name; those of three-sigma have settings of their own."""
    own: dict[str, float] = {
        "pane": detect.pane, "panes": detect.panes, "warm_up": detect.warm_up, "sigmas": detect.sigmas,
    }  # fmt: skip
    return {**detect.parameters, "three-sigma": own | detect.parameters.get("three-sigma", {})}
