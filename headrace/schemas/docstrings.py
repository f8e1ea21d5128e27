"""What docstrings say of models and of their fields, for the schemas that are published."""

import inspect
import re


def documented(model: type) -> tuple[str, dict[str, str]]:
    """What a docstring says before its sections, and of each argument; of inherited ones what the parent says."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__[1:-1]):
        if parent.__module__.startswith("headrace."):
            found |= documented(parent)[1]
    text = inspect.cleandoc(model.__doc__ or "")
    summary, *rest = re.split(r"\n\n(?=Args:|Raises:|Source:|>>>)", text)
    for names, meaning in re.findall(r"^    (\w[\w, ]*): ((?:.|\n {8})*)", "\n\n".join(rest), re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return " ".join(summary.split()), found
