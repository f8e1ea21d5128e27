"""Topics of Sparkplug B (section 4): `spBv1.0/GROUP/KIND/EDGE`, with `/DEVICE` where it is about one."""

from typing import Literal, NamedTuple, cast

NAMESPACE = "spBv1.0"
Kind = Literal["NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "NDATA", "DDATA"]
OF_NODES, OF_DEVICES = ("NBIRTH", "NDEATH", "NDATA"), ("DBIRTH", "DDEATH", "DDATA")
#: What is not for us: commands, and what hosts say of themselves.
COMMANDS = ("NCMD", "DCMD")
STATE = "STATE"


class EdgeTopic(NamedTuple):
    """What a topic says; `edge` is the edge node descriptor `GROUP/EDGE`, `device` is empty where it is of the node."""

    kind: Kind
    edge: str
    device: str = ""

    @property
    def device_id(self) -> str:
        """Whose records they are: `GROUP/EDGE`, or `GROUP/EDGE/DEVICE`."""
        return f"{self.edge}/{self.device}" if self.device else self.edge


def read_topic(topic: bytes) -> EdgeTopic | str | None:
    """What a topic says; None if it is none of those that data come on, and a text that says why if it is wrong.

    >>> read_topic(b"spBv1.0/plant/DDATA/press-4/motor")
    EdgeTopic(kind='DDATA', edge='plant/press-4', device='motor')
    """
    try:
        levels = topic.decode().split("/")
    except UnicodeDecodeError:
        return "the topic is not UTF-8"
    if levels[:2] == [NAMESPACE, STATE] or (len(levels) > 2 and levels[2] in COMMANDS):
        return None
    if len(levels) not in (4, 5) or levels[0] != NAMESPACE or not all(levels) or b"\0" in topic:
        return "no topic of Sparkplug B"
    known = OF_NODES if len(levels) == 4 else OF_DEVICES
    if levels[2] not in known:
        return f"{levels[2][:100]!r} is no kind of Sparkplug message of a {'node' if len(levels) == 4 else 'device'}"
    return EdgeTopic(cast(Kind, levels[2]), f"{levels[1]}/{levels[3]}", "".join(levels[4:]))


def command_topic(edge: str) -> str:
    """Where an edge node takes commands."""
    group, _, name = edge.partition("/")
    return f"{NAMESPACE}/{group}/NCMD/{name}"
