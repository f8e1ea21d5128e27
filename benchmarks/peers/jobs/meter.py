"""Tells the harness when the messages that warm up have passed. Standard library only: every environment has it."""

import json
import resource
import sys
import time


class Job:
    """What the harness wants, from the command line.

    bootstrap, input, output: broker and topics; group: consumer group; guarantee: "at-least-once" or "exactly-once";
    commit_seconds: between two commits, None for the engine's own; warm_up: messages before the clock starts;
    folder: for state, empty.
    """

    def __init__(self) -> None:
        said = json.loads(sys.argv[1])
        self.bootstrap: str = said["bootstrap"]
        self.input: str = said["input"]
        self.output: str = said["output"]
        self.group: str = said["group"]
        self.guarantee: str = said["guarantee"]
        self.commit_seconds: float | None = said["commit_seconds"]
        self.warm_up: int = said["warm_up"]
        self.folder: str = said["folder"]

    @property
    def exactly_once(self) -> bool:
        return self.guarantee == "exactly-once"


class Meter:
    """Counts messages, and says once how much processor time was used when `warm_up` of them were seen."""

    def __init__(self, warm_up: int) -> None:
        self._left = warm_up

    def seen(self, count: int = 1) -> None:
        before = self._left
        self._left = before - count
        if before > 0 >= self._left:
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu = used.ru_utime + used.ru_stime
            print(json.dumps({"cpu": cpu, "at": time.monotonic(), "beyond": -self._left}), flush=True)
