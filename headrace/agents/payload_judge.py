"""What ingest would say of messages that are not in the log yet, by the code that ingest says it with."""

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.agents.decode import Reasons, decode
from headrace.agents.exact_path import Limits
from headrace.agents.identify import DeviceIds
from headrace.agents.ingest import IngestConfig
from headrace.agents.read_payloads import PayloadReader
from headrace.engine.clock import Clock
from headrace.schemas.device_type import DeviceType


class PayloadJudge:
    """Says why messages would be refused. It knows neither the registry nor what came before: that is for ingest.

    Args:
        device_types: by name, as `load_device_types` returns them.
        config: as ingest has it.
        clock: what comes from the future is refused.

    >>> from headrace.engine.clock import ManualClock
    >>> from headrace.tables.device_types import load_device_types
    >>> judge = PayloadJudge(load_device_types(), IngestConfig(), ManualClock(1_750_000_000_000))
    >>> judge.refusals("environmental", [b"roof-7"], [b'{"timestamp": 1750000000000, "temperature": 900}'])
    {0: 'temperature is 900, greater than 85 degC'}
    """

    def __init__(self, device_types: Mapping[str, DeviceType], config: IngestConfig, clock: Clock) -> None:
        self._limits = limits = Limits(config.max_payload_bytes, round(config.max_ahead * 1000))
        self._readers = {name: PayloadReader(each, limits) for name, each in device_types.items()}
        self._device_ids = DeviceIds()
        self._clock = clock

    def refusals(self, device_type: str, device_ids: Sequence[bytes], payloads: Sequence[bytes]) -> Mapping[int, str]:
        """Why a message would be refused, by its place; nothing about those that are right.

        Args:
            device_type: known by this name, of all of them.
            device_ids: one per message.
        """
        reasons: Reasons = {}
        nameless: Reasons = {}
        names = self._device_ids.read(device_ids, nameless)
        for place, reason in nameless.items():
            # Whatever finds the device in a payload cannot, if nobody can read it.
            unreadable: Reasons = {}
            decode([payloads[place]], self._limits.payload_bytes, unreadable)
            reasons[place] = unreadable.get(0, reason)
        rows = [row for row in range(len(payloads)) if row not in nameless] if nameless else range(len(payloads))
        wrong: Reasons = {}
        if nameless:
            payloads, names = [payloads[row] for row in rows], [names[row] for row in rows]
        if payloads:
            times = np.full(len(payloads), self._clock.now_ms(), dtype=np.int64)
            self._readers[device_type].read(payloads, names, times, wrong)
        return reasons | {rows[place]: reason for place, reason in wrong.items()}
