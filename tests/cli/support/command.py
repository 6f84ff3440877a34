"""The real command in processes of its own, and the files that it is given."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.support import preloaded

Plain = dict[str, Any]


class MakeJob(Protocol):
    """Makes the plain data of a job that trains a tiny UNet on labels."""

    def __call__(self, name: str, steps: int, save_steps: int, nodes: int = 1) -> Plain: ...


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "NO_COLOR": "1"}


@dataclass
class Atj:
    """The command, in a folder of its own."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables beside the test's own."""

    def argv(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "atj.main", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments), cwd=self.folder, env={**environment(), **self.variables}, capture_output=True,
            text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """The command as a process that a test can interfere with; standard error goes with standard output."""
        return subprocess.Popen(
            self.argv(*arguments), cwd=self.folder, env={**environment(), **self.variables}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@dataclass
class PreloadedAtj(Atj):
    """The same for commands that ask a cluster, without the second that each would spend on imports."""

    def __call__(self, *arguments: str | Path, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            program = self._start(arguments, output.fileno(), errors.fileno())
            code = program.wait(seconds)
            for file in (output, errors):
                file.seek(0)
            return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())

    def said(self, *arguments: str | Path, meanwhile: Callable[[], None]) -> tuple[int, str]:
        """What a command says, on either output, and its exit code; while it runs, `meanwhile` is called."""
        with tempfile.TemporaryFile("w+") as output:
            program = self._start(arguments, output.fileno(), output.fileno())
            meanwhile()
            code = program.wait(240)
            output.seek(0)
            return code, output.read()

    def _start(self, arguments: Sequence[str | Path], output: int, errors: int) -> preloaded.Program:
        return preloaded.start(
            "atj.main", [str(each) for each in arguments], environment={**environment(), **self.variables},
            cwd=self.folder, stdout=output, stderr=errors,
        )  # fmt: skip


def write_yaml(path: Path, plain: Plain) -> Path:
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path
