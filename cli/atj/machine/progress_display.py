"""Live progress: a bar and a line of figures on a terminal, a plain line every few seconds anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adapter_api.progress import Progress
from atj.terminal import duration, say

LINE_SECONDS = 5.0
"""Between two plain lines."""
_REDRAW_SECONDS = 0.2


class Display(Protocol):
    """Where a run says what it does."""

    def say(self, message: str, style: str | None = None) -> None:
        """Says something once."""

    def show(self, attempt: int, progress: Progress | None, waiting_for: str) -> None:
        """Shows how far an attempt is; `waiting_for` stands in while there is no progress."""


@contextmanager
def display_on(console: Console) -> Iterator[Display]:
    """A display that suits the console."""
    if console.is_terminal:
        # Redrawn by hand: a thread beside us could hold a lock at the moment at which a process is started.
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield _LiveDisplay(console, live)
    else:
        yield _LineDisplay(console)


class _LiveDisplay:
    def __init__(self, console: Console, live: Live) -> None:
        self.console = console
        self.live = live
        self.drawn = 0.0

    def say(self, message: str, style: str | None = None) -> None:
        say(self.console, message, style)

    def show(self, attempt: int, progress: Progress | None, waiting_for: str) -> None:
        if time.monotonic() - self.drawn >= _REDRAW_SECONDS:
            self.live.update(picture(attempt, progress, waiting_for), refresh=True)
            self.drawn = time.monotonic()


class _LineDisplay:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = ""
        self.printed = 0.0

    def say(self, message: str, style: str | None = None) -> None:
        say(self.console, message, style)
        self.console.file.flush()

    def show(self, attempt: int, progress: Progress | None, waiting_for: str) -> None:
        text = line(attempt, progress, waiting_for)
        if text != self.last and time.monotonic() - self.printed >= LINE_SECONDS:
            self.say(text)
            self.last, self.printed = text, time.monotonic()


def line(attempt: int, progress: Progress | None, waiting_for: str) -> str:
    """All of it in one line of text."""
    if progress is None or not progress.total_steps:
        return f"attempt {attempt}  {waiting_for if progress is None else progress.phase}"
    parts = [f"attempt {attempt}", f"step {progress.step}/{progress.total_steps}", f"{_percent(progress):.0f}%"]
    return "  ".join([*parts, *figures(progress), *_trouble(progress)])


def picture(attempt: int, progress: Progress | None, waiting_for: str) -> RenderableType:
    """All of it as a bar above a line of figures."""
    if progress is None or not progress.total_steps:
        return Text(line(attempt, progress, waiting_for), style="dim")
    bar = Table.grid(padding=(0, 2), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(
        Text(f"step {progress.step}/{progress.total_steps}", style="bold"),
        ProgressBar(total=progress.total_steps, completed=progress.step),
        Text(f"{_percent(progress):.0f}%"),
    )
    rows: list[RenderableType] = [bar, Text("  ".join([f"attempt {attempt}", *figures(progress)]), style="dim")]
    return Group(*rows, *(Text(trouble, style="yellow") for trouble in _trouble(progress)))


def figures(progress: Progress) -> list[str]:
    """What is known beside the step, each with its unit."""
    found: list[str] = [] if progress.phase == "training" else [progress.phase]
    if progress.loss is not None:
        found.append(f"loss {progress.loss:.4f}")
    if progress.images_per_second is not None:
        found.append(f"{progress.images_per_second:.1f} images/s")
    if progress.eta_seconds is not None and progress.phase != "ended":
        found.append(f"ETA {duration(progress.eta_seconds)}")
    found.append("no checkpoint yet" if progress.checkpoint is None else f"checkpoint {progress.checkpoint.step}")
    return found


def _percent(progress: Progress) -> float:
    return 100 * progress.step / progress.total_steps


def _trouble(progress: Progress) -> list[str]:
    told = (("upload", progress.upload_error), ("restore", progress.restore_warning), ("notice", progress.notice))
    return [f"{what}: {trouble}" for what, trouble in told if trouble is not None]
