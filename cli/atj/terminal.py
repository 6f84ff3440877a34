"""Consoles that results and errors are written to, progress bars, and how sizes and durations read."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from adapter_api.scalars import visible

if TYPE_CHECKING:
    from rich.console import Console  # what only says a line, and `validate` does no more, does without rich

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_WIDTH_WITHOUT_TERMINAL = 160
"""Columns for tables in files and pipes, so that addresses stay on one line."""


def results() -> "Console":
    """Standard output. Made anew by each caller, so that a redirected `sys.stdout` is honoured."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False, emoji=False)


def errors() -> "Console":
    """Standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def shown(text: str) -> str:
    """A text of others as it is shown: colours are left out, and whatever else would act on a terminal is written out."""
    return visible(_COLOURS.sub("", text).replace("\r\n", "\n"))


def cell(value: object) -> str:
    """A value of others in a table, in which square brackets are markup."""
    from rich.markup import escape

    return escape(shown(str(value)))


def say(console: "Console", message: str, style: str | None = None) -> None:
    """Prints a message as it stands: brackets in field paths are no markup, colons no emoji, and nothing is wrapped."""
    console.print(shown(message), style=style, markup=False, emoji=False, soft_wrap=True)


def say_result(message: str) -> None:
    """Prints a message on standard output, as `say` does, without rich."""
    typer.echo(shown(message))


def say_error(message: str, colour: str | None = None, *, dim: bool = False) -> None:
    """Prints a message on standard error, as `say` does, without rich."""
    plain = False if os.environ.get("NO_COLOR") else None
    typer.secho(shown(message), err=True, color=plain, fg=colour, dim=dim or None)


@contextmanager
def transfer(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal; what it yields is told of bytes as they pass."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )  # few commands draw one

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = errors()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def size(count: int) -> str:
    """A number of bytes as people read it: 1.2 MB."""
    from rich.filesize import decimal

    return decimal(count)


def duration(seconds: float) -> str:
    """A length of time as people read it: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
