"""Labelled series: what the simulated fleet measures, without a broker, and the truth about what was wrong."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.connectors.fleet_config import Kind, SimulatedFleetConfig
from headrace.connectors.fleet_episodes import Episode, Episodes
from headrace.connectors.fleet_messages import FleetMessages, device_name
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Readings
from headrace.tables.device_types import load_device_types

#: Monday, 2024-01-01T00:00Z.
START_MS = 1_704_067_200_000
DAY = 86_400.0
#: Part of the time before anything goes wrong; as much as NAB does not score.
QUIET = 0.15
#: So many rounds of episodes follow.
ROUNDS = 6
#: Share of the devices with an episode of each kind in every round: about half of them.
SHARE = 0.075

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Window(NamedTuple):
    """First and last row of an episode in a series."""

    kind: Kind
    first: int
    last: int


class Series(NamedTuple):
    """One metric of one device, in the order sent.

    Args:
        device: its id.
        metric: name of the measure.
        times: (n,) int64, event times, ms; strictly rising but where the clock was wrong.
        values: (n,) float64.
        windows: in the order of their first row. That of a silence is the row after it.
    """

    device: str
    metric: str
    times: Ints
    values: Floats
    windows: list[Window]


def simulated_fleet(
    seed: int = 7,
    devices: int = 40,
    days: float = 21.0,
    interval: float = 300.0,
    *,
    device_type: DeviceType | None = None,
    share: float = SHARE,
    round_days: float | None = None,
) -> tuple[Readings, list[Episode]]:
    """What a fleet measures, and what was wrong with it; the same for the same arguments.

    Values and episodes are those of `headrace demo`; messages have no faults of their own. All devices send at the
    same moments, from a Monday midnight on.

    Args:
        seed: another gives another fleet.
        devices: count.
        days: how long.
        interval: seconds between two readings of a device.
        device_type: of all devices; the environmental sensor if left out. Not one whose messages name their metric.
        share: of the devices that have an episode of each kind in every round, at least one device; at most 1/7.
        round_days: from one round of episodes to the next; if left out, six rounds follow the first 15 % of the time.
    Returns:
        Readings in the order sent: by time, and at the same time by device; event times go back only where a clock is
        wrong. And all episodes, in the order of their first event time.

    >>> readings, truth = simulated_fleet(devices=10, days=2)
    >>> len(readings), sorted(readings.measures)[:3], {episode.kind.value for episode in truth} >= {"burst", "drift"}
    (5627, ['battery', 'co2', 'humidity'], True)
    """
    device_type = device_type or load_device_types()["environmental"]
    quiet = QUIET * days * DAY
    every = (days * DAY - quiet) / ROUNDS if round_days is None else round_days * DAY
    shares = dict.fromkeys(Kind, share)
    config = SimulatedFleetConfig(seed=seed, devices=devices, every=every, quiet=quiet, **shares)
    messages = FleetMessages(config, device_type, interval * 1000)
    truth: list[Episode] = []
    episodes = Episodes(truth.append)
    names = [device_name(device) for device in range(devices)]
    ids: list[str] = []
    times: list[int] = []
    rows: list[tuple[float, ...]] = []
    for sequence in range(int(days * DAY / interval)):
        time_ms = START_MS + round(sequence * interval * 1000)
        for device, name in enumerate(names):
            sample = messages.sample(device, sequence, time_ms)
            episodes.note(name, sample.time_ms, sample.wrong, sample.touched)
            if not sample.silent:
                ids.append(name)
                times.append(sample.time_ms)
                rows.append(tuple(sample.measures.values()))
    episodes.finish()
    measured = np.array(rows)
    columns = {name: measured[:, place].copy() for place, name in enumerate(sample.measures)}
    readings = Readings(
        device_type.name,
        np.arange(len(ids)),
        ids,
        np.array(times, dtype=np.int64),
        [f"{name}/{time}" for name, time in zip(ids, times, strict=True)],
        columns,
    )
    return readings, sorted(truth, key=lambda episode: (episode.first_ms, episode.device))


def series(readings: Readings, truth: Iterable[Episode]) -> list[Series]:
    """Every metric of every device with the windows of what was wrong with it, for who scores series by series.

    An episode without a metric (a silence, a wrong clock) has its window in all series of the device.
    """
    of_device: dict[str, list[Episode]] = {}
    for episode in truth:
        of_device.setdefault(episode.device, []).append(episode)
    ids = np.array(readings.device_ids)
    found = []
    for device in sorted(set(readings.device_ids)):
        places = (ids == device).nonzero()[0]
        times = readings.times[places]
        for metric, column in readings.measures.items():
            concerned = [each for each in of_device.get(device, []) if each.metric in (None, metric)]
            windows = [_window(times, episode) for episode in concerned]
            found.append(Series(device, metric, times, column[places], sorted(windows, key=lambda window: window[1])))
    return found


def _window(times: Ints, episode: Episode) -> Window:
    if episode.kind in (Kind.GAP, Kind.REBOOT):
        after = min(int((times <= episode.last_ms).sum()), len(times) - 1)
        return Window(episode.kind, after, after)
    # A wrong clock is in step with itself alone: between its times there are others.
    shown = ((times >= episode.first_ms) & (times <= episode.last_ms)).nonzero()[0]
    if episode.kind is Kind.SKEW:
        shown = shown[(times[shown] - episode.first_ms) % _step(times) == 0]
    return Window(episode.kind, int(shown[0]), int(shown[-1]))


def _step(times: Ints) -> int:
    """The usual time between two rows."""
    return int(np.median(np.diff(times)))
