"""How ingest reads the payloads of one device type: most on the ordinary path, what that leaves on the exact one."""

from collections.abc import Sequence

import numpy as np

from headrace.agents.decode import Reasons
from headrace.agents.exact_path import Limits, read_exactly
from headrace.agents.normalised import Normalised, join
from headrace.agents.ordinary_path import ordinary_path
from headrace.schemas.device_type import DeviceType
from headrace.schemas.readings import Ints


class PayloadReader:
    """Reads payloads of one device type. What it says of a message depends on nothing but the message.

    Args:
        device_type: of all of them.
        limits: what no message may exceed.
    """

    def __init__(self, device_type: DeviceType, limits: Limits) -> None:
        self.device_type = device_type
        self._limits = limits
        self._ordinary = ordinary_path(device_type, limits)

    def read(
        self, payloads: Sequence[bytes | None], device_ids: list[str], append_times: Ints, reasons: Reasons
    ) -> tuple[Normalised, dict[str, int]]:
        """The messages that are right, and how many of them have each field that the device type does not know.

        Args:
            payloads: as the devices sent them.
            device_ids: one per message.
            append_times: (n,) int64, ms.
            reasons: gets an entry, by place, for each message that is refused.
        """
        if self._ordinary is None:
            return read_exactly(self.device_type, self._limits, payloads, device_ids, append_times, reasons)
        found = self._ordinary.read(payloads, device_ids, append_times)
        if len(found) == len(payloads):
            return found, {}
        left = np.ones(len(payloads), dtype=bool)
        left[found.rows] = False
        places = left.nonzero()[0]
        rows = places.tolist()
        wrong: Reasons = {}
        rest, unknown = read_exactly(
            self.device_type,
            self._limits,
            [payloads[row] for row in rows],
            [device_ids[row] for row in rows],
            append_times[places],
            wrong,
        )
        for place, reason in wrong.items():
            reasons[rows[place]] = reason
        rest.rows = places[rest.rows]
        return join(self.device_type, [found, rest]), unknown
