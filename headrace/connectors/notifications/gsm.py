"""The alphabet of SMS (GSM 03.38): 160 of its characters are one message, but only 70 of any other."""

import unicodedata
from collections.abc import Callable

_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: An escape goes before them: two characters each.
_EXTENDED = "^{}\\[~]|€"
#: What is as good.
_INSTEAD = str.maketrans(
    {"°": "", "µ": "u", "μ": "u", "…": "...", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"'}
    | {"²": "2", "³": "3", "·": "*", "×": "x", "≥": ">=", "≤": "<=", "\t": " ", "\u00a0": " ", "\u202f": " ", "ẞ": "SS"}
)
SINGLE = 160
#: Of UTF-16, where a character is in neither alphabet.
SINGLE_UNICODE = 70
_ENDS = "..."


def septets(text: str) -> int | None:
    """Characters of GSM 7-bit that `text` takes; None if it has others.

    >>> septets("[WARNING] 32.5 C"), septets("警告")
    (18, None)
    """
    if any(each not in _BASIC and each not in _EXTENDED for each in text):
        return None
    return len(text) + sum(each in _EXTENDED for each in text)


def plain(text: str) -> str:
    """`text` in the alphabet, as far as there is something as good: without accents that it lacks."""
    text = text.translate(_INSTEAD)
    return "".join(each if septets(each) is not None else _without_accent(each) for each in text)


def one_sms(text: str) -> str:
    """`text` shortened to one SMS: 160 characters in the alphabet, or 70 if it cannot be written with it."""
    text = plain(" ".join(text.split()))
    if septets(text) is None:
        return _cut(text, SINGLE_UNICODE, lambda each: len(each.encode("utf-16-le")) // 2, "…")
    return _cut(text, SINGLE, lambda each: septets(each) or 0, _ENDS)


def _cut(text: str, most: int, size: Callable[[str], int], ends: str) -> str:
    if size(text) <= most:
        return text
    kept, left = [], most - size(ends)
    for each in text:
        left -= size(each)
        if left < 0:
            break
        kept.append(each)
    return "".join(kept).rstrip() + ends


def _without_accent(character: str) -> str:
    bare = "".join(each for each in unicodedata.normalize("NFKD", character) if not unicodedata.combining(each))
    return bare if bare and septets(bare) is not None else character
