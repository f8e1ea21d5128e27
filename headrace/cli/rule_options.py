"""The options of `headrace rules set`: a rule, or a change of one, from the command line."""

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import click

from headrace.cli.moments import duration
from headrace.engine.errors import ConfigError
from headrace.schemas.condition import Gap, Operator, kind_of
from headrace.schemas.rule import AlertRule, Channel, Severity

#: Options of the condition, and of the rule, that hold seconds.
_SECONDS = ("duration", "clear_for", "rate_per", "max_gap", "offline_for", "clear_after", "cooldown_period")
_CONDITION = (
    "metric", "operator", "threshold", "clear", "duration", "clear_for", "rate_per", "out_of", "gap", "max_gap",
    "expression", "silent_for", "offline_for", "anomaly_score", "detector", "clear_after",
)  # fmt: skip
_OPTIONS = (
    click.option("--name", metavar="TEXT", help="For people. Default for a new rule: its id."),
    click.option("--description", metavar="TEXT", help="What it is for, what to do."),
    click.option("--type", "device_type", metavar="NAME", help="For devices of this type; all for any."),
    click.option(
        "--device", "device_ids", metavar="ID", multiple=True, help="For this device only; may be repeated; '' for all."
    ),
    click.option("--organisation", "organization_id", metavar="NAME", help="For its devices only; '' for all."),
    click.option("--metric", metavar="NAME", help="What is compared; with --anomaly-score, whose anomalies."),
    click.option("--operator", type=click.Choice(get_args(Operator)), help="How."),
    click.option("--threshold", type=float, metavar="NUMBER", help="With what, in the metric's unit."),
    click.option("--clear", type=float, metavar="NUMBER", help="Hysteresis: where an open alert may end."),
    click.option("--rate-per", metavar="TIME", help="Compare the change per so much time, as 60 or 1m."),
    click.option("--expression", metavar="TEXT", help="As 'temperature > 30 and humidity > 80'."),
    click.option("--silent-for", metavar="TIME", help="Nothing came for so long; learned: for its own usual time."),
    click.option("--offline-for", metavar="TIME", help="Its MQTT connection is gone for so long."),
    click.option("--anomaly-score", type=float, metavar="NUMBER", help="An anomaly with at least this score."),
    click.option("--detector", metavar="NAME", help="With --anomaly-score: found by this one."),
    click.option("--clear-after", metavar="TIME", help="With --anomaly-score: over after so long without one."),
    click.option("--duration", metavar="TIME", help="For which it must hold, as 300 or 5m."),
    click.option("--clear-for", metavar="TIME", help="For which it must not hold any more."),
    click.option("--out-of", metavar="N/M", help="On n of the last m readings, as 3/5."),
    click.option("--gap", type=click.Choice(get_args(Gap)), help="When no reading comes for --max-gap."),
    click.option("--max-gap", metavar="TIME", help="See --gap."),
    click.option("--severity", type=click.Choice(get_args(Severity)), help="Default for a new rule: warning."),
    click.option("--cooldown", "cooldown_period", metavar="TIME", help="Between two triggers. Default: 5m."),
    click.option("--status", type=click.Choice(["active", "inactive"]), help="Default for a new rule: active."),
    click.option("--explains/--explains-nothing", default=None, help="Of a gateway: its alerts explain others."),
    click.option("--notify", type=click.Choice(get_args(Channel)), multiple=True, help="May be repeated."),
    click.option("--webhook", metavar="URL", multiple=True, help="May be repeated; '' for none."),
)


def rule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options, as keyword arguments of the names of the fields."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, with times as seconds.

    Raises:
        ConfigError: one that cannot be read.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    for name in _SECONDS:
        if name in given:
            option = "cooldown" if name == "cooldown_period" else name.replace("_", "-")
            given[name] = _seconds(f"--{option}", given[name])
    if given.get("silent_for", "learned") != "learned":
        given["silent_for"] = _seconds("--silent-for", given["silent_for"])
    if "out_of" in given:
        found = re.fullmatch(r"(\d+)/(\d+)", given["out_of"])
        if found is None:
            raise ConfigError(f"--out-of: {given['out_of']!r} is not N/M, as in 3/5")
        given["out_of"] = {"n": int(found[1]), "m": int(found[2])}
    return given


def document_with(given: Mapping[str, Any], rule_id: str, before: AlertRule | None) -> dict[str, Any]:
    """The document of a new rule, or of `before` with what was given put in.

    A condition of another kind takes the place of the old one; of the same kind it keeps what is not given.
    """
    rest = dict(given)
    condition = {name: rest.pop(name) for name in _CONDITION if name in rest}
    if before is None:
        document: dict[str, Any] = {"rule_id": rule_id, "name": rule_id}
    else:
        document = before.model_dump(mode="json")
        known = before.model_dump(mode="json", exclude_defaults=True)["condition"]
        other = {"operator", "expression", "silent_for", "offline_for", "anomaly_score"} & condition.keys()
        condition = condition if other and kind_of(condition) != kind_of(known) else known | condition
    actions = document.get("actions", {})
    if "notify" in rest:
        actions = {**actions, "notifications": list(dict.fromkeys(rest.pop("notify")))}
    if "webhook" in rest:
        actions = {**actions, "webhooks": list(dict.fromkeys(filter(None, rest.pop("webhook"))))}
    if "device_ids" in rest:
        rest["device_ids"] = list(filter(None, rest["device_ids"]))
    if rest.get("organization_id") == "":
        rest["organization_id"] = None
    return {**document, **rest, "actions": actions, **({"condition": condition} if condition else {})}


def _seconds(option: str, text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else duration(option, text)
