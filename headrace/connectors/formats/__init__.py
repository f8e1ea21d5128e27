"""Payload formats: what devices and gateways send that is not one JSON object of one device."""

from headrace.connectors.formats.envelope import EnvelopeFields
from headrace.connectors.formats.parts import Aside, Message, NotUnpacked, Part, Unpack
from headrace.connectors.formats.profile_format import NAMES_DEVICES, WRITES_TIME, FormatName, unpacker
from headrace.connectors.formats.senml_names import SenmlNames
from headrace.connectors.formats.sequence import SequenceField

__all__ = [
    "NAMES_DEVICES",
    "WRITES_TIME",
    "Aside",
    "EnvelopeFields",
    "FormatName",
    "Message",
    "NotUnpacked",
    "Part",
    "SenmlNames",
    "SequenceField",
    "Unpack",
    "unpacker",
]
