"""Every error that headrace raises, split by what the caller does next.

HeadraceError
├── ConfigError        the operator fixes the configuration; exit code 2
├── LogError           the log cannot be trusted any more; the process stops
│   ├── LogInUse       another worker has the data folder
│   └── LogDamaged     records are not what was written; a table's partition stops, visibly
├── CommitRefused      the partitions are another worker's now; restore and go on
├── TopicChanged       a topic is not the one that was read before; its partition stops, visibly
├── TableUnreadable    a changelog is damaged or of a newer version; its partition stops, visibly
├── TableFull          a replicated table has too many entries; the agents that read it wait, visibly
├── BadRecord          one record is wrong; dead-letter it, go on
├── CutBatch           an operator wants the batch in two; no failure
├── RetryLater         the other side is busy; try again after `after` seconds
├── Disconnected       the other side is gone; connect again
└── AgentStopped       an agent failed too often; its partition stops, visibly
"""

from collections.abc import Sequence


class HeadraceError(Exception):
    """Root of every error raised by headrace."""


class ConfigError(HeadraceError):
    """The configuration is wrong. Holds every mistake found, not just the first."""

    def __init__(self, *mistakes: str) -> None:
        self.mistakes: Sequence[str] = mistakes
        super().__init__("\n".join(mistakes))


class LogError(HeadraceError):
    """An append or commit could not be made durable: nothing of it was acknowledged."""


class LogInUse(LogError):
    """Another worker holds the data folder."""


class LogDamaged(LogError):
    """Records of a partition are damaged where the log keeps them: they cannot be read, now or later."""


class CommitRefused(HeadraceError):
    """A commit had no effect: the group gave the partitions out anew, or the log forgot the writer.

    State that finished batches changed is ahead of the log now. Drop it and restore it from the changelog, then go on
    from the committed positions.
    """


class TopicChanged(HeadraceError):
    """A topic was made anew, or got partitions that its readers' tables do not have. Says which command repairs it."""


class TableUnreadable(HeadraceError):
    """A changelog is damaged, or was written by a newer version of its table. Says what to do about it."""


class TableFull(HeadraceError):
    """A replicated table has more entries than it may. Says what to do about it."""


class BadRecord(HeadraceError):
    """A record that can never be processed: undecodable or invalid.

    Args:
        index: place of the record in the batch it was read with, from 0.
        reason: what is wrong, for a person.
    """

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        self.reason = reason
        super().__init__(f"record {index}: {reason}")


class CutBatch(HeadraceError):
    """An operator wants the records before `row`, and those from it on, as two batches, one after the other.

    Raised by `process`, which is then called anew, at once. It is no failure: nothing counts it, waits, or warns. What
    was staged for the batch is dropped. Other agents that read the same records get them whole.

    Args:
        row: place of a record in the batch; neither the first (0) nor beyond the last: then it is an error like others.
    """

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(f"the batch is to be cut before record {row}")

    def is_within(self, count: int) -> bool:
        """Whether a batch of `count` records can be cut like this."""
        return 0 < self.row < count


class RetryLater(HeadraceError):
    """The other side cannot take this now; try the same again after `after` seconds."""

    def __init__(self, reason: str, after: float = 1.0) -> None:
        self.after = after
        super().__init__(reason)


class Disconnected(HeadraceError):
    """The connection to the other side is gone; connect again, then go on."""


class AgentStopped(HeadraceError):
    """An agent failed on too many records in a row; its partition does not advance."""


def first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """The first error in a group, however deep: what a task group wraps, unwrapped for the caller."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
