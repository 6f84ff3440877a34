"""Has report.html written beside training, by a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from adapter_api.layout import LOGS_FOLDER, PAGE_FILE

PAGE = Path(LOGS_FOLDER) / PAGE_FILE
"""Within an output folder."""
LEAST_SECONDS = 60.0
"""Between two pages: short runs need the last one only."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for its page."""


class PageWriter:
    """Of one output folder; without one, nothing is written."""

    def __init__(
        self, output: Path | None, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._show = show
        self._clock = clock
        self._begun = clock()
        self._process: subprocess.Popen[bytes] | None = None

    def renew(self) -> None:
        """Starts to write the page, unless that is under way, or was a moment ago."""
        is_running = self._process is not None and self._process.poll() is None
        if not is_running and self._clock() - self._begun >= LEAST_SECONDS:
            self._start()

    def finish(self) -> None:
        """Writes the last page; returns when it is there, or cannot be made."""
        if self._output is None:
            return
        self._wait()
        self._start()
        self._wait()

    def _start(self) -> None:
        if self._output is None:
            return
        self._begun = self._clock()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adapter_trainer.reporting.run_page", str(self._output)],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def _wait(self) -> None:
        if self._process is None:
            return
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code != 0:
            self._show(f"report.html could not be written (exit code {code}); training is not affected")
        self._process = None
