"""What is exported is sorted and there, and nothing public is beside it; packages export nothing, their modules do."""

from importlib import import_module
from types import ModuleType

import pytest

EXPORTERS = ["headrace", "headrace.consume"]
#: Importing one module of these must not bring in all that its neighbours need, such as Faust.
BARE = [
    "headrace.agents",
    "headrace.cli",
    "headrace.connectors",
    "headrace.engine",
    "headrace.schemas",
    "headrace.tables",
]


def public(module: ModuleType) -> set[str]:
    """The names that stand in it, without modules."""
    return {
        each for each, value in vars(module).items() if not each.startswith("_") and not isinstance(value, ModuleType)
    }


@pytest.mark.parametrize("name", EXPORTERS)
def test_all_is_sorted_and_complete(name: str) -> None:
    """`__all__` is sorted, every name in it exists, and no other public name is there."""
    module = import_module(name)

    exported = list(module.__all__)

    assert exported == sorted(exported)
    assert public(module) == {each for each in exported if not each.startswith("_")}
    for each in exported:
        assert hasattr(module, each)


@pytest.mark.parametrize("name", BARE)
def test_packages_export_nothing(name: str) -> None:
    """Whatever is in them is imported from the module that defines it."""
    assert public(import_module(name)) == set()
