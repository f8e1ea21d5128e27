"""How requests are written and read: many are about the same alert, which is written and read once."""

from collections.abc import Collection, Sequence

import orjson

from headrace.schemas.notification import Kind, Reason, Request, Subject
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


class Requests:
    """Reads requests."""

    def __init__(self) -> None:
        self._subjects: dict[bytes, Subject] = {}

    def read(self, value: bytes) -> tuple[Request, bytes]:
        """A request, and its subject as JSON.

        Raises:
            ValueError: it is none.
        """
        head, _, rest = value.partition(_SUBJECT)
        encoded = rest[:-1]
        known = self._subjects.get(encoded)
        if known is None:
            request = Request.model_validate_json(value)
            if not _is_json(encoded):  # written by something else, in another order
                return request, request.subject.model_dump_json(exclude_none=True).encode()
            if len(self._subjects) >= _MOST_SUBJECTS:
                self._subjects.clear()
            self._subjects[encoded] = request.subject
            return request, encoded
        fields = orjson.loads(head + b"}")
        fields["subject"] = known
        fields["reasons"] = tuple(Reason.model_construct(**each) for each in fields.get("reasons", ()))
        if fields.get("channels") is not None:
            fields["channels"] = tuple(fields["channels"])
        return Request.model_construct(**fields), encoded


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except ValueError:
        return False
    return True
