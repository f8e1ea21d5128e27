"""Second stage of ingest: whose message it is."""

from collections.abc import Collection, Iterable, Sequence

from headrace.agents.decode import Document, Reasons
from headrace.engine.records import Records
from headrace.schemas.topics import MAX_DEVICE_ID, NO_DEVICE, NO_PROFILE, PROFILE, REFUSED, SOURCE

#: Device ids remembered; at the limit the memory starts over. About 150 bytes each.
MAX_REMEMBERED = 200_000


class DeviceIds:
    """Reads record keys as device ids: UTF-8, 1 to 256 printable characters. Remembers those it has read."""

    def __init__(self) -> None:
        self._known: dict[bytes | None, str] = {}

    def read(self, keys: Sequence[bytes | None], reasons: Reasons) -> list[str]:
        """The device id per key; empty where the key is none, with the reason in `reasons`."""
        known = self._known
        try:
            return [known[key] for key in keys]
        except KeyError:
            return [self._read_one(place, key, reasons) for place, key in enumerate(keys)]

    def _read_one(self, place: int, key: bytes | None, reasons: Reasons) -> str:
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            device_id = (key or b"").decode()
        except UnicodeDecodeError:
            reasons.setdefault(place, "device id is not UTF-8")
            return ""
        wrong = _mistake(device_id)
        if wrong:
            reasons.setdefault(place, wrong)
            return ""
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = device_id
        return device_id


def _mistake(device_id: str) -> str:
    """Why this is no device id; empty if it is one."""
    if device_id == NO_DEVICE:
        return "the message names no device"
    if not device_id:
        return "device id is empty"
    if len(device_id) > MAX_DEVICE_ID:
        return f"device id is longer than {MAX_DEVICE_ID} characters"
    return "" if device_id.isprintable() else f"device id {device_id!r} has characters that cannot be printed"


def refuse_unknown_topics(records: Records, reasons: Reasons) -> None:
    """Refuse messages whose topic no topic profile takes.

    Args:
        records: raw messages.
        reasons: gets an entry for each message that is refused.
    """
    profiles = records.headers.get(PROFILE)
    if profiles is None or NO_PROFILE.encode() not in ([profiles] if isinstance(profiles, bytes) else profiles):
        return
    pairs = zip(records.header(PROFILE), records.header(SOURCE), strict=True)
    for place, (profile, topic) in enumerate(pairs):
        if profile == NO_PROFILE.encode():
            reasons.setdefault(place, f"no topic profile takes the topic {_said(topic or b'')}")


def refuse_not_unpacked(records: Records, reasons: Reasons) -> None:
    """Refuse messages that the format of their profile could not unpack, for the reason that it gave.

    Args:
        records: raw messages.
        reasons: gets an entry for each message that is refused.
    """
    if REFUSED in records.headers:
        for place, (reason, profile) in enumerate(zip(records.header(REFUSED), records.header(PROFILE), strict=True)):
            if reason is not None:
                name = (profile or b"").decode(errors="replace")
                reasons.setdefault(place, f"profile {name}: {reason.decode(errors='replace')}")


def _said(topic: bytes) -> str:
    try:
        return repr(topic.decode())
    except UnicodeDecodeError:
        return f"{topic!r}, which is not UTF-8"


def check_identity(
    documents: Sequence[Document],
    device_ids: list[str],
    fields: Iterable[str],
    names: Collection[str],
    reasons: Reasons,
) -> None:
    """Refuse messages that claim to be another device's.

    Args:
        documents: the payloads.
        device_ids: whose topic (or path) each came under.
        fields: payload fields that hold the device id, where present.
        names: all names in any of the documents.
        reasons: gets an entry for each message that is refused.
    """
    for field in fields:
        if field not in names:
            continue
        claimed = [document.get(field) for document in documents]
        if claimed == device_ids:
            continue
        for place, (claim, device_id) in enumerate(zip(claimed, device_ids, strict=True)):
            if claim is not None and claim != device_id:
                said = repr(claim[:MAX_DEVICE_ID]) if isinstance(claim, str) else "not a text"
                reasons.setdefault(place, f"{field} in the payload is {said}, but the message came from {device_id!r}")
