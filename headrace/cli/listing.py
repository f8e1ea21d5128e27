"""Tables on standard output: fitted to a terminal, one whole line per row anywhere else."""

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

#: Wide enough that no line is broken for a program that reads it.
ENDLESS = 100_000


def listing(*columns: str, right: tuple[str, ...] = (), header: bool = True) -> Table:
    """A table without lines; the columns named in `right` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=header)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def show_listing(table: Table) -> None:
    """Print a table. Square brackets in its cells are text, whoever named a device so; styles come as `Text`."""
    if sys.stdout.isatty():
        Console(markup=False).print(table)
        return
    console = Console(width=ENDLESS, markup=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def printable(text: str) -> str:
    """`text` without what a terminal would act on, on one line.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def status_text(found: Mapping[str, Any]) -> str:
    """Names and values on a line."""
    return ", ".join(
        str(value) if key in ("state", "why") else f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
        for key, value in found.items()
    )
