"""Sequence numbers of devices, on their way from the payload to `headrace.agents.sequences` in a header."""

from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from headrace.connectors.formats.parts import Aside, Message, NotUnpacked, Part, Unpack, kind

#: Characters that are kept of what is no sequence number.
MAX_SHOWN = 40


class SequenceField(BaseModel):
    """Where a profile's payloads have a sequence number.

    Args:
        field: of the payload, at its top level, or of what it is unpacked to; a whole number.
        modulo: how many different numbers there are: behind the last comes 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(min_length=1)
    modulo: Literal[256, 65_536, 4_294_967_296] = 4_294_967_296


def sequence_header(number: object, modulo: int, time_ms: int | None = None) -> bytes | None:
    """The header's value; behind a question mark, why it is no number of this many; None if there is none.

    >>> sequence_header(17, 65_536), sequence_header(-1, 256)
    (b'17 65536', b'? -1 is no whole number from 0 to 255')
    """
    if number is None:
        return None
    if type(number) is float and number.is_integer():
        number = int(number)  # JSON knows no difference
    if type(number) is not int or not 0 <= number < modulo:
        return f"? {_shown(number)} is no whole number from 0 to {modulo - 1}".encode()
    return b"%d %d" % (number, modulo) if time_ms is None else b"%d %d %d" % (number, modulo, time_ms)


def said_again(header: bytes) -> bytes:
    """The header of a message that may have been appended before.

    >>> said_again(b"17 65536")
    b'17 65536 again'
    """
    return header if header.startswith(b"?") else header + b" again"


def _shown(value: object) -> str:
    if isinstance(value, bool | dict | list):
        return kind(value)
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"  # it may have more digits than Python writes
    shown = ascii(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


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
        return sequence_header(number, self._modulo)
