"""How requests are written and read: many are about the same alert, which is written and read once."""

from collections.abc import Collection, Sequence

import msgspec
import orjson

from headrace.schemas.notification import Code, Kind, Reason, Request, Subject
from headrace.schemas.rule import Channel

#: What stands before the subject, at the end. No text holds it: quotes in texts are escaped.
_SUBJECT = b',"subject":'
#: Subjects that are remembered.
_MOST_SUBJECTS = 2_000


def encode_subject(alert: bytes, subject: Subject) -> bytes:
    """A subject as JSON.

    Args:
        alert: the JSON that its alert was read from.
    """
    return b'{"alert":%b,"place":%b}' % (alert, subject.place.model_dump_json(exclude_none=True).encode())


def encode_request(
    recipient: str,
    kind: Kind,
    at_ms: int,
    subject: bytes,
    reasons: Sequence[Reason],
    *,
    step: int = 0,
    team: str | None = None,
    again: int = 0,
    channels: Collection[Channel] | None = None,
    message_id: str | None = None,
) -> bytes:
    """A `Request` as JSON, from its subject as JSON."""
    head: dict[str, object] = {"recipient": recipient, "kind": kind, "at": at_ms}
    if step:
        head |= {"step": step, "team": team}
    if again:
        head["again"] = again
    if channels is not None:
        head["channels"] = sorted(channels)
    head["reasons"] = [{"code": each.code, "text": each.text} for each in reasons]
    if message_id is not None:
        head["messageId"] = message_id
    return b"%b%b%b}" % (orjson.dumps(head)[:-1], _SUBJECT, subject)


class Said(msgspec.Struct, frozen=True):
    """A reason as it was read; the same as a `Reason`, for a tenth of the time."""

    code: Code
    text: str


class Head(msgspec.Struct, frozen=True):
    """A request without its subject; see `headrace.schemas.notification.Request`."""

    recipient: str
    kind: Kind
    at: int
    step: int = 0
    team: str | None = None
    again: int = 0
    channels: tuple[Channel, ...] | None = None
    reasons: tuple[Said, ...] = ()
    messageId: str | None = None


_read_head = msgspec.json.Decoder(Head).decode


class Requests:
    """Reads requests."""

    def __init__(self) -> None:
        self._subjects: dict[bytes, Subject] = {}

    def read(self, value: bytes) -> tuple[Head, Subject, bytes]:
        """A request, its subject, and that as JSON.

        Raises:
            ValueError: it is none.
        """
        head, _, rest = value.partition(_SUBJECT)
        encoded = rest[:-1]
        subject = self._subjects.get(encoded)
        if subject is None:
            request = Request.model_validate_json(value)
            subject = request.subject
            if not _is_json(encoded):  # written by something else, in another order
                return _head(request), subject, subject.model_dump_json(exclude_none=True).encode()
            if len(self._subjects) >= _MOST_SUBJECTS:
                self._subjects.clear()
            self._subjects[encoded] = subject
        return _read_head(head + b"}"), subject, encoded


def _head(request: Request) -> Head:
    return _read_head(request.model_dump_json(exclude={"subject"}))


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except ValueError:
        return False
    return True
