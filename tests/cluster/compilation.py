"""Compiles one program with Go, and says meanwhile how far it is."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tests.cluster.errors import ClusterError

_LINE_SECONDS = 15.0
"""Between two lines where output is no terminal."""


def compile_program(
    name: str, package: str, target: Path, flags: Sequence[str], *, folder: Path, environment: dict[str, str]
) -> None:
    """Compile a main package of the module in `folder` into the file `target`.

    Go keeps what it has compiled: a compilation that was interrupted goes on where it was.

    Args:
        name: What the program is called in messages.
        package: The import path of its main package.
        target: Appears only when it is whole.
        flags: Of `go build`.
        folder: Holds go.mod and go.sum, which pin every version.
        environment: Of the compiler.

    Raises:
        ClusterError: Go failed; its own messages stand before.
    """
    partial, started = target.with_suffix(".partial"), time.monotonic()
    build = subprocess.Popen(
        ["go", "build", "-v", *flags, "-o", partial, package],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert build.stderr is not None
    packages, problems = _Packages(name, _packages_of(package, folder, environment), started), []
    for line in build.stderr:
        if _names_a_package(line):
            packages.another()
        elif not line.startswith("go: downloading "):
            problems.append(line)
    if build.wait() != 0:
        packages.clear()
        sys.stderr.writelines(problems)
        raise ClusterError(
            f"{name} could not be compiled from {folder}/go.mod: see Go's message above. "
            "What has been compiled is kept; the same command goes on there"
        )
    partial.rename(target)
    packages.clear()
    print(f"{name}: compiled in {_minutes(time.monotonic() - started)}", flush=True)


def _packages_of(package: str, folder: Path, environment: dict[str, str]) -> int:
    """Return how many packages the program is made of; 0 where Go cannot tell."""
    command = ["go", "list", "-deps", package]
    listed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0


def _names_a_package(line: str) -> bool:
    return " " not in line.strip() and not line.startswith(("#", "\t"))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


class _Packages:
    """Counts compiled packages, in one line on a terminal and in a line now and then anywhere else."""

    def __init__(self, name: str, total: int, started: float, stream: TextIO = sys.stdout) -> None:
        self._name, self._total, self._started, self._stream = name, total, started, stream
        self._done = 0
        self._told = started

    def another(self) -> None:
        """Count one package."""
        self._done += 1
        now = time.monotonic()
        of = f" of at most {self._total}" if self._total else ""
        text = f"{self._name}: {self._done}{of} packages compiled, {_minutes(now - self._started)}"
        if self._stream.isatty():
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
        elif now - self._told >= _LINE_SECONDS:
            print(text, file=self._stream, flush=True)
            self._told = now

    def clear(self) -> None:
        """Give the line back."""
        if self._stream.isatty():
            print("\r\x1b[K", end="", file=self._stream, flush=True)
