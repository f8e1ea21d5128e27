"""Texts of notifications by language: one TOML file each in words/, all with the same keys."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("words")
#: Every language falls back to it.
DEFAULT = "en"


@cache
def languages() -> frozenset[str]:
    """Codes of the languages that ship."""
    return frozenset(path.stem for path in _FOLDER.glob("*.toml"))


def nearest(language: str) -> str:
    """The shipped language for a BCP 47 tag: `de-AT` reads `de`, what nobody has translated reads English.

    >>> [nearest(each) for each in ("de-AT", "en", "fr")]
    ['de', 'en', 'en']
    """
    parts = language.split("-")
    tags = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((tag for tag in tags if tag in languages()), DEFAULT)


@cache
def words(language: str) -> Mapping[str, str]:
    """Texts of a language that ships, by key."""
    found: dict[str, str] = tomllib.loads((_FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return found
