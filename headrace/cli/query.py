"""`headrace query`: what is stored, in tables or as JSON."""

import click

from headrace.cli import query_view as view
from headrace.cli.query_options import Asking, answering, choosing, page_options, range_options
from headrace.cli.query_records import alerts, anomalies, conflicts, ledger, state
from headrace.connectors.timescale import sigma as defaults
from headrace.connectors.timescale.bin_grid import WIDTHS
from headrace.connectors.timescale.history import MOST_ROWS
from headrace.engine.errors import ConfigError
from headrace.schemas.window import UTC, known_zone

#: Readings that raw history shows at a time.
RAW_ROWS = 1000


def _zone(_context: click.Context, _option: click.Parameter, name: str) -> str:
    try:
        return known_zone(name)
    except ValueError as error:
        raise ConfigError(f"--zone: {error}") from error


@click.group()
def query() -> None:
    """Ask what is stored: newest values, history, bins, outliers, states, conflicts, alerts, the ledger.

    Works beside a running worker or demo (--data FOLDER), and on the server of [database] dsn (--config FILE). A TIME
    is ISO 8601, or a time before the newest message that is stored, such as -24h. Standard error says where the answer
    comes from, and how complete it is.
    """


@query.command()
@answering
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@choosing("--type", "--metric")
@click.option("--within", metavar="DURATION", default="1h", show_default=True, help="How old a value may be.")
@click.option("--as-of", metavar="TIME", help="As it was at TIME. Default: as of the newest message that is stored.")
@click.option("--below", type=float, help="Only devices with a value below this.")
@click.option("--above", type=float, help="Only devices with a value above this.")
def latest(
    ask: Asking,
    devices: tuple[str, ...],
    device_type: str | None,
    metrics: tuple[str, ...],
    within: str,
    as_of: str | None,
    below: float | None,
    above: float | None,
) -> None:
    """Show the newest value of each metric of DEVICEs, or of all devices of a --type, each with its own time."""
    ask(
        view.show_latest,
        lambda store, times: store.latest(
            devices or None, metrics, device_type=device_type, within=times.duration("--within", within),
            as_of_ms=times.moment("--as-of", as_of), below=below, above=above,
        ),
    )  # fmt: skip


@query.command()
@answering
@click.argument("device")
@range_options("-24h")
@choosing("--type", "--metric")
@click.option(
    "--aggregation",
    type=click.Choice(["raw", *WIDTHS]),
    default="15m",
    show_default=True,
    help="Average, minimum, maximum and count per bin; or the readings, of at most 90 days.",
)
@click.option("--zone", default=UTC, show_default=True, callback=_zone, help="Where days of 1d begin, IANA name.")
@click.option("--readings", is_flag=True, help="Aggregate readings only, not also the windows of the stream.")
@page_options(RAW_ROWS, MOST_ROWS, "raw: readings at a time; 0 for all")
def history(
    ask: Asking,
    device: str,
    start: str,
    end: str | None,
    device_type: str | None,
    metrics: tuple[str, ...],
    aggregation: str,
    zone: str,
    readings: bool,
    limit: int,
    cursor: str | None,
) -> None:
    """Show the history of DEVICE: every bin of the range, empty ones too, or the readings as they are."""
    if aggregation != "raw":
        ask(
            view.show_history,
            lambda store, times: store.history(
                device, *times.range(start, end), aggregation, metrics, zone=zone, device_type=device_type,
                source="readings" if readings else None,
            ),
        )  # fmt: skip
    elif limit:
        ask(
            view.show_raw,
            lambda store, times: store.raw(
                device, *times.range(start, end), metrics, limit=limit, cursor=cursor, device_type=device_type
            ),
        )
    else:
        ask(
            view.show_raw,
            lambda store, times: store.stream(device, *times.range(start, end), metrics, device_type=device_type),
        )


@query.command()
@answering
@click.argument("device_type", metavar="TYPE")
@click.argument("metric")
@range_options("-24h")
@choosing("--device")
@click.option("--width", default="15m", show_default=True, help="Of the bins: a number and s, m, h or d.")
@click.option("--below", type=float, help="Only bins with an average below this.")
@click.option("--above", type=float, help="Only bins with an average above this.")
def bins(
    ask: Asking,
    device_type: str,
    metric: str,
    start: str,
    end: str | None,
    devices: tuple[str, ...],
    width: str,
    below: float | None,
    above: float | None,
) -> None:
    """Show average, minimum and maximum of METRIC per bin, for all devices of TYPE; the newest bins first."""
    ask(
        view.show_bins,
        lambda store, times: store.bins(
            device_type, metric, *times.range(start, end), width, device_ids=devices or None, below=below, above=above
        ),
    )


@query.command()
@answering
@click.argument("device_type", metavar="TYPE")
@click.argument("metric")
@choosing("--device")
@click.option("--end", metavar="TIME", help="Up to TIME. Default: the newest message that is stored.")
@click.option("--window", default="7d", show_default=True, help="Of mean and standard deviation.")
@click.option("--recent", default="1h", show_default=True, help="Of the values that are judged.")
@click.option("--sigmas", type=float, default=defaults.SIGMAS, show_default=True, help="Standard deviations allowed.")
def sigma(
    ask: Asking,
    device_type: str,
    metric: str,
    devices: tuple[str, ...],
    end: str | None,
    window: str,
    recent: str,
    sigmas: float,
) -> None:
    """Show recent values of METRIC that are far from the mean of their device."""
    ask(
        view.show_outliers,
        lambda store, times: store.sigma(
            device_type, metric, device_ids=devices or None, end_ms=times.moment("--end", end),
            window=times.duration("--window", window), recent=times.duration("--recent", recent), sigmas=sigmas,
        ),
    )  # fmt: skip


for command in (state, conflicts, alerts, anomalies, ledger):
    query.add_command(command)
