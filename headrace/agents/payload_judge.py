"""What ingest would say of messages that are not in the log yet, by the code that ingest says it with."""

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.agents.decode import MAX_DEPTH, Reasons, decode, kind, too_deep
from headrace.agents.exact_path import Limits
from headrace.agents.identify import DeviceIds
from headrace.agents.ingest import IngestConfig
from headrace.agents.read_payloads import PayloadReader
from headrace.engine.clock import Clock
from headrace.schemas.device_type import DeviceType
from headrace.schemas.topics import NO_DEVICE


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
        self._identity = {name: each.identity for name, each in device_types.items()}
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
            found = device_ids[place] != NO_DEVICE.encode()
            reasons[place] = self._why_nameless(device_type, payloads[place], found) or reason
        rows = [row for row in range(len(payloads)) if row not in nameless] if nameless else range(len(payloads))
        wrong: Reasons = {}
        if nameless:
            payloads, names = [payloads[row] for row in rows], [names[row] for row in rows]
        if payloads:
            times = np.full(len(payloads), self._clock.now_ms(), dtype=np.int64)
            self._readers[device_type].read(payloads, names, times, wrong)
        return reasons | {rows[place]: reason for place, reason in wrong.items()}

    def _why_nameless(self, device_type: str, payload: bytes, found: bool) -> str:
        """What kept whatever looks for the device from finding it in a payload; empty if nothing did."""
        unreadable: Reasons = {}
        (document,) = decode([payload], self._limits.payload_bytes, unreadable)
        if unreadable:
            return unreadable[0]
        if too_deep(document):
            return f"arrays and objects nest deeper than {MAX_DEPTH} levels"
        if found:
            return ""
        claims = [(name, document[name]) for name in self._identity[device_type] if document.get(name) is not None]
        for name, claim in claims:
            if not isinstance(claim, str):
                return f"{name} is {kind(claim)}; a device id is a text"
        return f"{claims[0][0]} is empty" if claims else ""
