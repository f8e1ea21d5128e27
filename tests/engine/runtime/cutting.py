"""An agent that cuts its batches where a rule changes, as one does that looks a rule up once per batch."""

from collections.abc import Iterable

from headrace.engine.batch import Batch
from headrace.engine.errors import CutBatch
from headrace.engine.operator import State
from headrace.engine.records import Records

RULE = b"rule "


class Cutting:
    """Sends each record on behind the rule that holds for it; `rule x` makes `x` the rule from there on."""

    name = "cutting"
    topic = "in"
    output = "out"
    tables: Iterable[State] = ()

    def __init__(self) -> None:
        self.rule = b"?"
        #: Records per batch that was worked on, count.
        self.sizes: list[int] = []

    def process(self, batch: Batch) -> None:
        """Stage everything, then see that it was too much."""
        values = [value or b"" for value in batch.records.values]
        rule = values[0].removeprefix(RULE) if values[0].startswith(RULE) else self.rule
        sent: list[bytes | None] = [rule + b":" + value for value in values]
        batch.send_records(self.output, Records(batch.records.keys, sent, batch.records.timestamps))
        batch.on_finish(lambda: self._worked(rule, len(batch)))
        for row, value in enumerate(values):
            if row and value.startswith(RULE):
                raise CutBatch(row)

    def _worked(self, rule: bytes, size: int) -> None:
        self.rule = rule
        self.sizes.append(size)


def behind_rules(values: Iterable[bytes]) -> list[bytes | None]:
    """What is to be sent, record by record."""
    rule, sent = b"?", list[bytes | None]()
    for value in values:
        rule = value.removeprefix(RULE) if value.startswith(RULE) else rule
        sent.append(rule + b":" + value)
    return sent
