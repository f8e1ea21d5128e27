"""Small helpers for messages that people read."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

#: Characters of an id that a table or a line of the log shows.
LONGEST = 64
#: Around names in what pydantic says.
_QUOTE = "'"


def near(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that was probably meant; empty when none is close.

    >>> near("temprature", ["temperature", "humidity"])
    "; did you mean 'temperature'?"
    """
    found = get_close_matches(name, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of what is too long for its place, and how long it is.

    >>> shortened("a-very-long-name", 6)
    'a-very… (16 characters)'
    """
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def why_invalid(error: ValidationError) -> str:
    """The first mistake that pydantic found, for a person: where, and what; without the value."""
    found = error.errors(include_url=False, include_input=False)[0]
    return ": ".join([*filter(None, [".".join(map(str, found["loc"]))]), what_is_wrong(found)])


def what_is_wrong(mistake: ErrorDetails) -> str:
    """One mistake that pydantic found, in plain words; the patterns of texts are about control characters."""
    bounds = mistake.get("ctx", {})
    said = mistake["msg"].removeprefix("Value error, ")
    match mistake["type"]:
        case "missing":
            said = "is missing"
        case "extra_forbidden":
            said = "is not known"
        case "union_tag_not_found":
            said = f"{bounds['discriminator'].strip(_QUOTE)} is missing"
        case "union_tag_invalid":
            said = f"{bounds['discriminator'].strip(_QUOTE)} must be one of {bounds['expected_tags']}"
        case "string_pattern_mismatch":
            said = "must not hold control characters"
        case "string_too_short" if bounds["min_length"] == 1:
            said = "must not be empty"
        case "string_too_long":
            said = f"must have at most {bounds['max_length']:,} characters"
    return said
