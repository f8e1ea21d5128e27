"""What docstrings say of models and of their fields, for the schemas that are published."""

import inspect
import re


def documented(model: type) -> tuple[str, dict[str, str]]:
    """What a docstring says in its first paragraph, and of each argument; of inherited ones what the parent says."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__[1:-1]):
        if parent.__module__.startswith("headrace."):
            found |= documented(parent)[1]
    text = inspect.cleandoc(model.__doc__ or "")
    summary, _, rest = text.partition("\n\n")
    for names, meaning in re.findall(r"^    (\w[\w, ]*): ((?:.|\n {8})*)", rest, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return " ".join(summary.split()), found
