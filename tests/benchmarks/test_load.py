"""Messages of the benchmarks."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import orjson


def test_messages_go_on_where_others_ended(load_benchmark: Callable[[str], Any]) -> None:
    """So that nothing of a second part is a repeat: devices and times are those of the whole."""
    load = load_benchmark("load")

    whole = [(device, time) for device, time, _ in islice(load.messages(2_500), 1_500, None)]
    part = list(load.messages(1_000, first=1_500))

    assert [(device, time) for device, time, _ in part] == whole
    assert all(orjson.loads(payload)["timestamp"] == time for _, time, payload in part)
