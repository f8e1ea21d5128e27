"""Sparkplug messages one by one, as a payload format: what they say without those before them."""

from headrace.connectors.formats.parts import Aside, Message, NotUnpacked, Part, check_size, most_output
from headrace.connectors.sparkplug.catalogue import NOTHING, Catalogue, UnknownMetric, documents
from headrace.connectors.sparkplug.payload import read_payload
from headrace.connectors.sparkplug.topic import EdgeTopic, read_topic
from headrace.connectors.sparkplug.wire import BadPayload


class SparkplugAlone:
    """Reads births, and data that name their metrics; for dead letters that are sent back, where nothing else is known.

    The bridge's own way is `headrace.connectors.sparkplug.intake.SparkplugIntake`.

    Args:
        time_field: of the objects that are made.
    """

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field

    def __call__(self, message: Message) -> list[Part] | Aside:
        """See `headrace.connectors.formats.parts.Unpack`."""
        about = read_topic("/".join(message.topic).encode())
        if about is None:
            return Aside("Sparkplug command or state")
        if not isinstance(about, EdgeTopic):
            raise NotUnpacked(about)
        check_size(message.payload)
        try:
            read = read_payload(message.payload)
            known = Catalogue.of(read.metrics) if about.kind in ("NBIRTH", "DBIRTH") else NOTHING
            found = documents(read, known, message.now_ms, self._time_field, most_output(message.payload))
        except BadPayload as error:
            raise NotUnpacked(f"no Sparkplug B payload: {error}", about.device_id) from error
        except UnknownMetric as error:
            reason = f"nobody knows any more what it says of {error}: its birth certificate came with others"
            raise NotUnpacked(reason, about.device_id) from error
        return [Part(about.device_id, each) for each in found] or Aside(about.kind, about.device_id)
