"""The formats by the names that topic profiles use."""

from typing import Literal

from headrace.connectors.formats.chirpstack import ChirpStack
from headrace.connectors.formats.envelope import Envelope, EnvelopeFields
from headrace.connectors.formats.parts import Unpack
from headrace.connectors.formats.senml import Senml, senml_cbor, senml_json
from headrace.connectors.formats.senml_names import SenmlNames
from headrace.connectors.formats.sequence import Numbered, SequenceField
from headrace.connectors.formats.sparkplug import SparkplugAlone
from headrace.connectors.formats.thingsboard import ThingsBoard, ThingsBoardGateway

#: `json` is one object of one device, and goes into the log as it was sent; `sparkplug` is taken by an intake of
#: its own, `headrace.connectors.sparkplug.intake`.
FormatName = Literal[
    "json", "thingsboard", "thingsboard-gateway", "chirpstack", "senml-json", "senml-cbor", "envelope", "sparkplug"
]
#: Those whose payloads, or topics, say the devices by themselves.
NAMES_DEVICES = frozenset({"thingsboard-gateway", "chirpstack", "senml-json", "senml-cbor"})
#: Those that write a time of their own into the objects that they make, ms since 1970 UTC.
WRITES_TIME = NAMES_DEVICES | {"thingsboard", "sparkplug"}


def unpacker(
    name: FormatName,
    *,
    time_field: str,
    senml: SenmlNames,
    envelope: EnvelopeFields,
    sequence: SequenceField | None,
) -> Unpack | None:
    """A format, set up; None where payloads go into the log as they are, without a look at them."""
    made: Unpack | None = None
    match name:
        case "thingsboard":
            made = ThingsBoard(time_field)
        case "thingsboard-gateway":
            made = ThingsBoardGateway(time_field)
        case "chirpstack":
            made = ChirpStack(time_field)
        case "senml-json":
            made = Senml(senml, time_field, senml_json)
        case "senml-cbor":
            made = Senml(senml, time_field, senml_cbor)
        case "envelope":
            made = Envelope(envelope)
        case "sparkplug":
            made = SparkplugAlone(time_field)
    return made if sequence is None else Numbered(sequence, made)
