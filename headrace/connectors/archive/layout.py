"""Names of objects: Hive partitions, as DuckDB, Spark and polars read them."""

import hashlib
from datetime import date
from typing import NamedTuple
from urllib.parse import quote

#: How Hive writes a value that is missing.
NOTHING = "__HIVE_DEFAULT_PARTITION__"
#: Longest value in a name, bytes: a file system takes 255 for `organisation=…`.
MOST_BYTES = 200


class Place(NamedTuple):
    """Where a part belongs.

    Args:
        dataset: `readings`, or the table that the rows come from.
        device_type: of readings; None for other datasets.
        organisation: of the devices; None where they have none.
        day: UTC.
    """

    dataset: str
    device_type: str | None
    organisation: str | None
    day: date

    @property
    def folder(self) -> str:
        """The folder of the day's parts, without a slash at its end.

        >>> Place("readings", "air", "Acme & Söhne", date(2026, 1, 2)).folder
        'readings/device_type=air/organisation=Acme%20%26%20S%C3%B6hne/day=2026-01-02'
        """
        steps = [self.dataset]
        if self.device_type is not None:
            steps += [f"device_type={_value(self.device_type)}", f"organisation={_value(self.organisation)}"]
        return "/".join([*steps, f"day={self.day.isoformat()}"])

    def object(self, number: int, digest: str) -> str:
        """The name of part `number`, which also has a bit of what the part holds: no part ever replaces another."""
        return f"{self.folder}/part-{number:05}-{digest[:12]}.parquet"


def _value(text: str | None) -> str:
    if text is None:
        return NOTHING
    # Not "." nor "..": no file system takes them for names.
    encoded = quote(text, safe="").replace(".", "%2E") if set(text) <= {"."} else quote(text, safe="")
    if len(encoded) <= MOST_BYTES:
        return encoded
    whole = encoded[: MOST_BYTES - 17]
    cut = whole[: whole.rfind("%")] if "%" in whole[-2:] else whole
    return f"{cut}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
