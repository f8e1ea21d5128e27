"""The agent that detects anomalies: several detectors on the same readings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.agents.anomalies import Finder, Found, send_anomalies
from headrace.agents.cadence import Cadence
from headrace.agents.detector import Detector
from headrace.agents.ensemble import Ensemble
from headrace.agents.holt import Holt
from headrace.agents.page_hinkley import PageHinkley
from headrace.agents.quiet import Quiet
from headrace.agents.rate_of_change import RateOfChange
from headrace.agents.robust import Robust
from headrace.agents.seasonal import Seasonal
from headrace.agents.series_detect import SeriesDetect
from headrace.agents.stuck import Stuck
from headrace.agents.three_sigma import ThreeSigma
from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.engine.operator import Idling
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near

#: Detectors of single series, by name.
SERIES: dict[str, Callable[..., Detector]] = {
    each.name: each for each in (Ensemble, Robust, Holt, RateOfChange, Stuck, Seasonal, PageHinkley)
}
#: Detectors that are operators, by name.
OPERATORS: dict[str, Callable[..., Finder]] = {each.name: each for each in (ThreeSigma, Cadence)}
#: What is detected with if nothing else is said.
DEFAULT = (Ensemble.name, Stuck.name, Cadence.name)


class Detect:
    """Give every batch to some detectors, and send what they find in log order, then in theirs.

    Args:
        parts: the detectors.
    """

    name = "detect"
    topic = topics.READINGS

    def __init__(self, parts: Sequence[Finder]) -> None:
        self.parts = tuple(parts)
        self.tables = tuple(table for part in parts for table in part.tables)
        self._idling = [part for part in parts if isinstance(part, Idling)]
        timeouts = [part.idle_timeout for part in self._idling if part.idle_timeout is not None]
        self.idle_timeout = min(timeouts, default=None)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`."""
        return any(part.is_waiting(partition) for part in self._idling)

    def process(self, batch: Batch) -> None:
        """Let each detector look at the batch."""
        if batch.idle is None:
            self.process_together([batch])
            return
        found = [each for part in self._idling for each in part.find(batch)]
        send_anomalies(batch, sorted(found, key=lambda each: each[0]))

    def process_together(self, batches: Sequence[Batch]) -> None:
        """See `headrace.engine.operator.Joint`."""
        found: list[list[Found]] = [[] for _ in batches]
        for part in self.parts:
            by_batch = part.find_together(batches) if isinstance(part, SeriesDetect) else map(part.find, batches)
            for every, own in zip(found, by_batch, strict=True):
                every.extend(own)
        for batch, own in zip(batches, found, strict=True):
            send_anomalies(batch, sorted(own, key=lambda each: each[0]))


def build_detect(
    names: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    device_types: Mapping[str, DeviceType],
    quiet: Quiet | None = None,
) -> Detect:
    """The agent with detectors by name.

    Args:
        names: of `SERIES` and `OPERATORS`.
        parameters: arguments of the detectors, by name; the others take their defaults.
        device_types: by name.
        quiet: how long a detector of series keeps silent after an event.
    Raises:
        ConfigError: every name and argument that is wrong.
    """
    every, mistakes = {**SERIES, **OPERATORS}, list[str]()
    built: dict[str, Any] = {}
    for name in dict.fromkeys([*names, *parameters]):
        if name not in every:
            mistakes.append(f"detect: there is no detector {name!r}{near(name, every)}")
            continue
        try:
            built[name] = every[name](**parameters.get(name, {}))
        except ConfigError as error:
            mistakes += error.mistakes
        except TypeError as error:
            mistakes.append(f"detect.{name}: {str(error).rpartition('() ')[2]}")
    if mistakes:
        raise ConfigError(*mistakes)
    chosen = list(dict.fromkeys(names))
    series = [built[name] for name in chosen if name in SERIES]
    operators: list[Finder] = [built[name] for name in chosen if name in OPERATORS]
    return Detect([*([SeriesDetect(series, device_types, quiet)] if series else []), *operators])
