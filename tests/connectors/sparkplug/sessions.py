"""Random histories of an edge node, and what became of its messages on their way."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

from tests.connectors.sparkplug.edge_node import EdgeNode

START_MS = 1_750_000_000_000
METRICS = {"": {"volts": (1, "Int64")}, "motor": {"rpm": (2, "Int64")}, "fan": {"rpm": (3, "Int64")}}
Step = Literal["node data", "motor data", "fan data", "motor dies", "rebirth", "reconnect", "disconnect"]
STEPS: tuple[Step, ...] = (
    *("node data", "motor data", "fan data") * 4, "motor dies", "rebirth", "reconnect", "disconnect",
)  # fmt: skip


@dataclass
class Sent:
    """A message: what is in it is in no other. `session` counts births of the node."""

    topic: str
    payload: bytes
    kind: str
    session: int
    values: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass
class History:
    """Publishes, each value once: they are numbers that go up, as do the times."""

    node: EdgeNode = field(default_factory=lambda: EdgeNode(metrics=METRICS))
    sent: list[Sent] = field(default_factory=list)
    value: int = 0
    now: int = START_MS
    session: int = 0

    def take(self, step: Step) -> None:
        """Publish what the step says."""
        self.now += 1
        device = step.split()[0].replace("node", "")
        if step.endswith("data"):
            name = next(iter(METRICS[device]))
            self.value += 1
            values = [(self.node.topic("", device), name, self.value)]
            self._add(*self.node.data(device, self.now, {name: self.value}), values)
        elif step == "motor dies":
            self._add(*self.node.device_death("motor", self.now), [])
            self.now += 1
            self._birth("motor")
        else:
            if step != "rebirth":
                self._add(*self.node.death(), [])
                self.node.connect()
            self.now += 1
            self.be_born()

    def be_born(self) -> None:
        """All births."""
        self.session += 1
        for device in ("", "fan", "motor"):
            self.now += 1
            self._birth(device)

    def _birth(self, device: str) -> None:
        name = next(iter(METRICS[device]))
        self.value += 1
        given: dict[tuple[str, str], Any] = {(device, name): self.value}
        values = [(self.node.topic("", device), name, self.value)]
        if device:
            self._add(*self.node.device_birth(device, self.now, given), values)
        else:
            self._add(*self.node.node_birth(self.now, given), values)

    def _add(self, topic: str, payload: bytes, values: list[tuple[str, str, int]]) -> None:
        self.sent.append(Sent(topic, payload, topic.split("/")[2], self.session, values))


def history(steps: list[Step]) -> History:
    """What is published when a node connects and does these."""
    made = History()
    made.node.connect()
    made.be_born()
    for step in steps:
        made.take(step)
    return made


histories = st.lists(st.sampled_from(STEPS), min_size=3, max_size=40).map(history)


def gaps(sent: list[Sent], lost: set[int]) -> tuple[int, int]:
    """How many stretches of a session were lost that something of it came after, and how many messages they had.

    Written down from what a gap is, without sequence numbers; nothing of a birth may be lost.
    """
    stretches = missing = run = 0
    session = 0
    for place, message in enumerate(sent):
        if message.kind == "NDEATH":
            continue
        if message.session != session:
            session, run = message.session, 0
        if place in lost:
            run += 1
        elif run:
            stretches, missing, run = stretches + 1, missing + run, 0
    return stretches, missing
