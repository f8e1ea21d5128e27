"""A device type file as data: TOML or YAML."""

import re
import tomllib
from collections.abc import Hashable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

#: What the names of device type files end in.
SUFFIXES = frozenset({".toml", ".yaml", ".yml"})


def read_type_file(file: Traversable | Path) -> dict[str, Any]:
    """The table in a file, TOML unless its name says YAML.

    Raises:
        ValueError: it cannot be read, or is no table; with the place.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return _yaml(text) if file.name.endswith((".yaml", ".yml")) else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(str(error)) from error


def _yaml(text: str) -> dict[str, Any]:
    # Not at the top: most folders have none.
    import yaml  # noqa: PLC0415

    def refuse(node: yaml.Node, problem: str) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)

    class Loader(yaml.SafeLoader):
        """YAML 1.1 guesses types; what it would guess wrong is refused instead."""

        def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
            if node.value not in ("true", "false"):
                refuse(node, f"{node.value} is a boolean in YAML: write true or false, or put it in quotes")
            return bool(node.value == "true")

        def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> NoReturn:
            refuse(node, f"{node.value} is a date in YAML: put it in quotes")

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            if not re.fullmatch(r"[+-]?(0|[1-9]\d*)", node.value):
                refuse(node, f"{node.value} is no plain number: write it in decimal digits, or put it in quotes")
            return int(node.value)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = set()
            for key, _ in node.value:
                if key.value in keys:
                    refuse(key, f"{key.value} is there twice")
                keys.add(key.value)
            return super().construct_mapping(node, deep)

    for kind in ("bool", "timestamp", "int"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", getattr(Loader, f"construct_yaml_{kind}"))
    try:
        data = yaml.load(text, Loader)
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(data, dict):
        raise ValueError("the file holds no table")
    return data
