"""What the packages export: sorted, there, and nothing public beside it."""

from importlib import import_module
from types import ModuleType

import pytest

PACKAGES = ["headrace", "headrace.agents", "headrace.engine", "headrace.schemas", "headrace.tables"]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_complete(name: str) -> None:
    """`__all__` is sorted, every name in it exists, and no other public name is in the package."""
    package = import_module(name)

    exported = list(package.__all__)

    assert exported == sorted(exported)
    public = {
        each for each, value in vars(package).items() if not each.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == {each for each in exported if not each.startswith("_")}
    for each in exported:
        assert hasattr(package, each)
