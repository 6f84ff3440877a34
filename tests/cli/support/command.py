"""The real command in processes of its own, and the files that it is given."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

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


def write_yaml(path: Path, plain: Plain) -> Path:
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path
