"""The device types of an installation: those that ship, and those in a folder of the operator's."""

import copy
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.engine.errors import ConfigError
from headrace.schemas.device_type import DeviceType
from headrace.tables.type_file import SUFFIXES, read_type_file

_STAND_IN = "unnamed"


def load_device_types(extra_dir: Path | str | None = None) -> dict[str, DeviceType]:
    """Every device type by name: the shipped ones, then the files in `extra_dir`, which may replace a shipped one.

    Raises:
        ConfigError: all mistakes of all files, each with its file and place.
    """
    mistakes: list[str] = []
    types = _load(_shipped(), mistakes)
    if extra_dir is not None:
        folder = Path(extra_dir)
        if folder.is_dir():
            types |= _load(sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES), mistakes)
        else:
            mistakes.append(f"{folder}: no such folder of device types")
    if mistakes:
        raise ConfigError(*mistakes)
    return types


def read_device_types(files: Sequence[Path]) -> tuple[dict[str, DeviceType], list[str]]:
    """The device types in these files, by name, and every mistake of those that have any, with file and place."""
    mistakes: list[str] = []
    return _load(files, mistakes), mistakes


def _shipped() -> list[Traversable]:
    folder = resources.files("headrace.schemas") / "types"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)


def _load(files: Sequence[Traversable | Path], mistakes: list[str]) -> dict[str, DeviceType]:
    types: dict[str, DeviceType] = {}
    origin: dict[str, str] = {}
    for file in files:
        device_type = _read(file, mistakes)
        if device_type is None:
            continue
        if device_type.name in types:
            mistakes.append(f"{file}: {origin[device_type.name]} has a device type {device_type.name!r} already")
        types[device_type.name] = device_type
        origin[device_type.name] = file.name
    return types


def _read(file: Traversable | Path, mistakes: list[str]) -> DeviceType | None:
    try:
        data = read_type_file(file)
    except ValueError as error:
        mistakes.append(f"{file}: {error}")
        return None
    found = list(_mistakes(data))
    if found:
        mistakes += [f"{file}: {mistake}" for mistake in found]
        return None
    return DeviceType.model_validate(data)


def _mistakes(data: dict[str, Any]) -> Iterator[str]:
    """Every mistake in `data`.

    Pydantic checks how the parts fit together only once each part is right, so what is wrong is taken out until
    nothing is.
    """
    remaining = copy.deepcopy(data)
    while True:
        try:
            DeviceType.model_validate(remaining)
            return
        except ValidationError as error:
            progress = False
            for found in error.errors(include_url=False):
                place = tuple(part for part in found["loc"] if part != "[key]")
                message = found["msg"].removeprefix("Value error, ")
                for line in message.split("\n"):
                    yield f"{'.'.join(map(str, place))}: {line}" if place else line
                progress = _take_out(remaining, place) or progress
            if not progress:
                return


def _take_out(data: Any, place: tuple[int | str, ...]) -> bool:
    """Remove what is at `place`, or, if that is missing, what it is missing from. False if nothing was removed."""
    if place == ("name",):
        # The one value that nothing can do without.
        progress: bool = data.get("name") != _STAND_IN
        data["name"] = _STAND_IN
        return progress
    parents = [data]
    for part in place[:-1]:
        try:
            parents.append(parents[-1][part])
        except (KeyError, IndexError, TypeError):
            break
    for parent, part in reversed(list(zip(parents, place, strict=False))):
        if isinstance(parent, dict) and part in parent:
            del parent[part]
            return True
    return False
