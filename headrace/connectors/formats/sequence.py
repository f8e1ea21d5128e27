"""Sequence numbers of devices, on their way from the payload to `headrace.agents.sequences` in a header."""

from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from headrace.connectors.formats.parts import Aside, Message, NotUnpacked, Part, Unpack


class SequenceField(BaseModel):
    """Where a profile's payloads have a sequence number.

    Args:
        field: of the payload, at its top level, or of what it is unpacked to; a whole number.
        modulo: how many different numbers there are: behind the last comes 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(min_length=1)
    modulo: Literal[256, 65_536, 4_294_967_296] = 4_294_967_296


def sequence_header(number: int, modulo: int, time_ms: int | None = None) -> bytes | None:
    """The header's value; None if that is no number of this many.

    >>> sequence_header(17, 65_536)
    b'17 65536'
    """
    if not 0 <= number < modulo:
        return None
    return b"%d %d" % (number, modulo) if time_ms is None else b"%d %d %d" % (number, modulo, time_ms)


class Numbered:
    """Looks up the number in what a message is unpacked to; without a format, in the payload, which stays as it is.

    Args:
        spec: where it is.
        unpack: the format, if there is one.
    """

    def __init__(self, spec: SequenceField, unpack: Unpack | None = None) -> None:
        self._modulo = spec.modulo
        self._unpack = unpack
        document = msgspec.defstruct("Document", [("number", object, None)], rename={"number": spec.field})
        self._decode = msgspec.json.Decoder(document).decode

    def __call__(self, message: Message) -> list[Part] | Aside:
        """See `headrace.connectors.formats.parts.Unpack`."""
        if self._unpack is None:
            return [Part(message.device_id, message.payload, self._read(message.payload))]
        try:
            found = self._unpack(message)
        except NotUnpacked as error:
            error.sequence = error.sequence or self._read(message.payload)
            raise
        if isinstance(found, Aside):
            return found
        return [part._replace(sequence=part.sequence or self._read(part.payload)) for part in found]

    def _read(self, payload: bytes) -> bytes | None:
        try:
            number: object = getattr(self._decode(payload), "number")  # noqa: B009 - of a type made at run time
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return sequence_header(number, self._modulo) if type(number) is int else None
