"""How far a command is that looks through records: a bar on a terminal, a line now and then anywhere else."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Records between two lines of progress off a terminal.
PLAIN_STEP = 500_000


class RecordProgress:
    """Shown from `with` until its end.

    Args:
        plain_step: records between two lines off a terminal, count.
    """

    def __init__(self, screen: Console, plain_step: int = PLAIN_STEP) -> None:
        columns = (
            TextColumn("records {task.fields[records]:,}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
        self._task = self._bar.add_task("", total=1.0, records=0)
        self._screen = screen
        self._plain_step = plain_step
        self._said = 0

    def __enter__(self) -> "RecordProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, records: int, done: float) -> None:
        """So many were looked at, which is so much of all."""
        self._bar.update(self._task, completed=done, records=records)
        if not self._screen.is_terminal and records // self._plain_step > self._said:
            self._said = records // self._plain_step
            self._screen.print(f"{records:,} records looked at, {done:.0%}", highlight=False)
