"""What a SenML name says: the device, and the metric."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from headrace.connectors.formats.parts import NotUnpacked

#: Characters of a name, base name included. Base names multiply: each record repeats them.
MAX_NAME = 512
#: RFC 8428, 4.5.1.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")


class SenmlNames(BaseModel):
    """How names, base name and name put together, are divided into device and metric.

    Args:
        separators: the last of these characters divides: `urn:dev:ow:10e2073a01080063:temp` is metric `temp` of device
            `urn:dev:ow:10e2073a01080063`. Empty: the whole name is the device's.
        metric: name of the metric where the name has none.
        by_unit: names of such metrics by their unit, as in `{ "%RH" = "humidity", lon = "longitude" }`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    separators: str = Field(":/", pattern=r"^[:./_-]*$")
    metric: str = Field("value", min_length=1)
    by_unit: Mapping[str, str] = {}

    def divide(self, name: str, unit: str, device_id: str) -> tuple[str, str]:
        """Device and metric of a name.

        Args:
            name: whole.
            unit: of the value, as SenML names it; may be empty.
            device_id: what the topic says; empty if nothing. If it says something the name is about a metric of it.
        Raises:
            NotUnpacked: it is no name, or names no device.

        >>> SenmlNames().divide("urn:dev:ow:10e2:temp", "Cel", "")
        ('urn:dev:ow:10e2', 'temp')
        """
        if not name and device_id:
            return device_id, self._unnamed(unit)
        if not _NAME.fullmatch(name):
            raise NotUnpacked(f"{name[:64]!r} is no SenML name: letters, digits and -:./_, beginning with one of those")
        place = max((name.rfind(separator) for separator in self.separators), default=-1)
        before, behind = (name[:place], name[place + 1 :]) if place >= 0 else ("", name)
        if device_id:
            return device_id, behind or self._unnamed(unit)
        if not self.separators:
            return name.rstrip(":/"), self._unnamed(unit)
        if not before:
            raise NotUnpacked(
                f"name {name[:64]!r} names no device: put its id before it as a base name, or into the topic, or set "
                'senml.separators = "" in the profile if this is the device'
            )
        return before, behind or self._unnamed(unit)

    def _unnamed(self, unit: str) -> str:
        return self.by_unit.get(unit, self.metric)
