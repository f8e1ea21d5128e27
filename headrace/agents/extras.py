"""Ingest, beside the measures: texts, and what the device type does not know. Kept, never dropped."""

import re
from collections.abc import Collection, Sequence

import msgspec

from headrace.agents.decode import MAX_DEPTH, Document, Reasons, too_deep
from headrace.schemas.device_type import DeviceType
from headrace.schemas.text import near

#: Names that a reason shows as they are, so that letters about one field are counted together.
_PLAIN = re.compile(r"[\w.-]{1,64}")
#: Extras of one message as JSON with sorted keys, on one line; None for nothing.
Extras = list[bytes | None]

#: An extra as JSON with sorted keys, on one line. Not orjson's: each of its results holds on to a kilobyte, which
#: costs ten times as much as the encoding.
encode_extra = msgspec.json.Encoder(order="deterministic").encode


def extras(
    device_type: DeviceType, documents: Sequence[Document], names: Collection[str], reasons: Reasons
) -> tuple[Extras | None, dict[str, int]]:
    """The extras per message (None: no message has any), and how many messages have each unknown field.

    Args:
        device_type: says what is known.
        documents: the payloads.
        names: all names in any of the documents.
        reasons: gets an entry for each message that is refused.
    """
    unknown = set(names) - device_type.known_names
    kept = {name: name for name in unknown}
    for field in device_type.texts:
        kept |= {source.name: field for source in device_type.sources[field] if source.name in names}
    if not kept:
        return None, {}
    counts = dict.fromkeys(sorted(unknown), 0)
    found: Extras = []
    for place, document in enumerate(documents):
        extra = {kept[name]: value for name, value in document.items() if name in kept and value is not None}
        found.append(_encode(place, extra, reasons) if extra else None)
        if unknown and place not in reasons:
            strange = [name for name in extra if name in counts]
            for name in strange:
                counts[name] += 1
            if strange and device_type.unknown_fields == "quarantine":
                reasons[place] = _unknown(strange, device_type)
    return found, {name: count for name, count in counts.items() if count}


def _unknown(names: list[str], device_type: DeviceType) -> str:
    shown = [name if _PLAIN.fullmatch(name) else repr(name[:64]) for name in sorted(names)]
    hint = near(names[0], device_type.known_names) if len(names) == 1 else ""
    return f"unknown field{'s' if len(names) > 1 else ''} {', '.join(shown)}{hint}"


def _encode(place: int, extra: Document, reasons: Reasons) -> bytes | None:
    try:
        encoded = encode_extra(extra)
    except RecursionError:
        encoded = b""
    # Depth is at most the number of brackets, and counting those is cheap.
    if not encoded or (encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and too_deep(extra)):
        reasons.setdefault(place, f"arrays and objects nest deeper than {MAX_DEPTH} levels")
        return None
    return encoded
