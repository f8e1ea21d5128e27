"""Changelog-backed state: windows, device state, registries, rules, alert state."""

from headrace.tables.counters import Counters
from headrace.tables.device_types import load_device_types
from headrace.tables.keyvalue import KeyValue
from headrace.tables.panes import PaneTable
from headrace.tables.registry import Registry
from headrace.tables.replicated import Replicated
from headrace.tables.rocks import RocksStores
from headrace.tables.rules import load_rules
from headrace.tables.seen import Seen
from headrace.tables.windows import WindowTable

__all__ = [
    "Counters",
    "KeyValue",
    "PaneTable",
    "Registry",
    "Replicated",
    "RocksStores",
    "Seen",
    "WindowTable",
    "load_device_types",
    "load_rules",
]
