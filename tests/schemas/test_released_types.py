"""The shipped device types do for whoever used a released version of them. `released` holds each, as NAME-VERSION."""

from pathlib import Path

import pytest

from headrace.schemas.type_compare import compare
from headrace.tables.device_types import load_device_types, read_device_types

RELEASED = sorted((Path(__file__).parent / "released").iterdir())


@pytest.mark.parametrize("file", RELEASED, ids=lambda file: file.stem)
def test_a_shipped_type_does_for_its_released_versions(file: Path) -> None:
    """Nothing that messages or readers rely on is gone, and what changed has a new version."""
    types, mistakes = read_device_types([file])

    (released,) = types.values()
    assert mistakes == []
    assert [change for change in compare(released, load_device_types()[released.name]) if not change.compatible] == []


def test_every_shipped_version_is_kept() -> None:
    """Whoever raises a version copies the file to `released`."""
    names = {file.stem for file in RELEASED}
    shipped = {f"{each.name.replace('-', '_')}-{each.version}" for each in load_device_types().values()}

    assert shipped - names == set()
