"""What is wrong with simulated devices, and when: a pure function of seed, device and the device's age."""

import math
from random import Random
from typing import NamedTuple

from headrace.connectors.fleet_config import Kind, SimulatedFleetConfig
from headrace.schemas.device_type import DeviceType
from headrace.schemas.simulate import simulated

#: An episode begins after this part of its round.
BEGIN = (0.3, 0.35)
#: How long it lasts, as parts of the round. A spike is one value.
LASTING = {
    Kind.BURST: (0.3, 0.4),
    Kind.SPIKE: (0.0, 0.0),
    Kind.DRIFT: (0.4, 0.6),
    Kind.STUCK: (0.3, 0.5),
    Kind.GAP: (0.2, 0.3),
    Kind.REBOOT: (0.02, 0.04),
    Kind.SKEW: (0.3, 0.5),
}
#: How large it is, as parts of the field's `deviation`.
SIZES = {Kind.BURST: (0.9, 1.1), Kind.SPIKE: (0.6, 1.0), Kind.DRIFT: (0.4, 0.8)}
#: What is less, in standard deviations, because the range of the field allows no more, is nothing.
LEAST_SIZE = 4
#: Fewest values of a metric in a round: then bursts and drifts have more than ten.
LEAST_VALUES = 40
#: Furthest that an event time is off: `agents.ingest` takes what is less than 300 s ahead.
LARGEST_SKEW_MS = 240_000


class Disturbance(NamedTuple):
    """What is wrong with one device for a while.

    Args:
        kind: what.
        metric: of which it is wrong; None if of all.
        begin_ms: when it begins, ms of the device's age.
        end_ms: when it is over.
        size: how far off values are, in the unit of the metric; with a skew or silence, seconds.
    """

    kind: Kind
    metric: str | None
    begin_ms: float
    end_ms: float
    size: float


class FaultScript:
    """Says what is wrong with a device. Rounds follow each other; in each some devices, by turns, have one episode.

    Args:
        config: the shares.
        device_type: its numbers that are no counters have wrong values.
        interval_ms: between two messages of a device.
    """

    def __init__(self, config: SimulatedFleetConfig, device_type: DeviceType, interval_ms: float) -> None:
        self._config = config
        self._interval_ms = interval_ms
        numbers = [name for name in device_type.measures if device_type.fields[name].type != "boolean"]
        self._gauges = [name for name in numbers if name not in device_type.counters]
        self._fields = {name: device_type.fields[name] for name in self._gauges}
        self._simulated = {name: simulated(name, spec) for name, spec in self._fields.items()}
        #: One that changes less than it can say is stuck anyway.
        self._restless = [name for name, how in self._simulated.items() if how.noise >= how.step]
        #: Messages that it takes to say everything once.
        self._cycle = 1 if device_type.metric is None else len(device_type.measures)
        self.round_ms = max(config.every * 1000, LEAST_VALUES * interval_ms * self._cycle)
        self._quiet_ms = config.quiet * 1000
        order = list(range(config.devices))
        Random(f"{config.seed}/order").shuffle(order)
        self._places = {device: place for place, device in enumerate(order)}
        #: What happens in a round, each with its number among its kind.
        self._roles = [
            (kind, number)
            for kind in Kind
            if self._possible(kind)
            for number in range(math.ceil(getattr(config, kind) * config.devices))
        ]
        self._shifts: dict[int, int] = {}
        self._now: dict[int, tuple[int, Disturbance | None]] = {}
        self._restarts: dict[int, tuple[int, float]] = {}

    def at(self, device: int, age_ms: float) -> Disturbance | None:
        """What is wrong with `device` at this age."""
        age_ms -= self._quiet_ms
        if age_ms < 0:
            return None
        number = int(age_ms // self.round_ms)
        known = self._now.get(device)
        if known is None or known[0] != number:
            known = self._now[device] = number, self._in_round(device, number)
        found = known[1]
        if found is None or not found.begin_ms <= age_ms + self._quiet_ms < found.end_ms:
            return None
        return found

    def restarted(self, device: int, age_ms: float) -> float:
        """At which age counters of `device` last started over, ms; negative if never."""
        last = int((age_ms - self._quiet_ms) // self.round_ms)
        seen, restart = self._restarts.get(device, (0, -1.0))
        if seen > last:
            seen, restart = 0, -1.0
        # The round that is running is looked at every time, those before it once.
        for number in range(seen, last + 1):
            if number == last:
                self._restarts[device] = number, restart
            found = self._in_round(device, number) if self._role(device, number) == Kind.REBOOT else None
            if found is not None and found.end_ms <= age_ms:
                restart = found.end_ms
        return restart

    def _possible(self, kind: Kind) -> bool:
        if kind is Kind.SKEW:
            return self._interval_ms / 2 <= LARGEST_SKEW_MS
        if kind is Kind.STUCK:
            return bool(self._restless)
        return kind in (Kind.GAP, Kind.REBOOT) or bool(self._gauges)

    def _turn(self, device: int, number: int) -> tuple[Kind, int] | None:
        devices, roles = self._config.devices, len(self._roles)
        place = (self._places[device] - number * min(devices, roles)) % devices
        if place >= roles:
            return None
        # Else some devices would have the same kind whenever it is their turn.
        if number not in self._shifts:
            self._shifts[number] = Random(f"{self._config.seed}/shift/{number}").randrange(roles)
        return self._roles[(place + self._shifts[number]) % roles]

    def _role(self, device: int, number: int) -> Kind | None:
        turn = self._turn(device, number)
        return turn and turn[0]

    def _in_round(self, device: int, number: int) -> Disturbance | None:
        turn = self._turn(device, number)
        if turn is None:
            return None
        kind, which = turn
        random = Random(f"{self._config.seed}/{device}/round/{number}")
        begin = self._quiet_ms + (number + random.uniform(*BEGIN)) * self.round_ms
        # Of a kind that has one, the first is on the type's first metric: somebody waits for it to go wrong.
        metric = None
        if kind is Kind.STUCK:
            metric = random.choice(self._restless)
        elif kind in SIZES:
            metric = random.choice(self._gauges) if which or kind is not Kind.BURST else self._gauges[0]
        lasting = self._lasting(kind, random)
        size = self._size(kind, metric, lasting, random)
        if kind in SIZES and metric is not None and abs(size) < LEAST_SIZE * self._simulated[metric].noise:
            return None
        return Disturbance(kind, metric, begin, begin + lasting, size)

    def _lasting(self, kind: Kind, random: Random) -> float:
        cycle = self._interval_ms * self._cycle
        if kind is Kind.SPIKE:
            return cycle
        return max(random.uniform(*LASTING[kind]) * self.round_ms, 2 * self._interval_ms)

    def _size(self, kind: Kind, metric: str | None, lasting: float, random: Random) -> float:
        if kind is Kind.SKEW:
            return self._skew_ms(random) / 1000
        if metric is None:
            return round(lasting / 1000, 3)
        if kind is Kind.STUCK:
            return 0.0
        size = random.uniform(*SIZES[kind]) * self._simulated[metric].deviation
        return self._within(metric, size, falls=kind is not Kind.BURST and random.random() < 0.5)

    def _within(self, metric: str, size: float, falls: bool) -> float:
        """`size`, up or down, as far as the range of the field allows."""
        spec, how = self._fields[metric], self._simulated[metric]
        up = math.inf if spec.max is None else spec.max - how.base[1] - abs(how.daily)
        down = math.inf if spec.min is None else how.base[0] - abs(how.daily) - spec.min
        falls = down >= size if falls else up < size and down > up
        return -min(size, max(down, 0.0)) if falls else min(size, max(up, 0.0))

    def _skew_ms(self, random: Random) -> float:
        """Half an interval beside the device's other event times, so that no two messages have the same."""
        most = int(LARGEST_SKEW_MS / self._interval_ms - 0.5)
        skew = (random.randint(most // 2, most) + 0.5) * self._interval_ms
        return skew if random.random() < 0.5 else -skew
