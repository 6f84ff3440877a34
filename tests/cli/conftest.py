"""Runs the real command in processes of its own, and knows the smallest job that trains."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from tests.trainer import tiny

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

    def __call__(self, *arguments: str | Path, seconds: float = 240) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture(scope="session")
def atj(tmp_path_factory: pytest.TempPathFactory) -> Atj:
    return Atj(tmp_path_factory.mktemp("atj"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def job(dataset: Path) -> MakeJob:
    def make(name: str, steps: int, save_steps: int, nodes: int = 1) -> Plain:
        changes = {
            "optimization": {"max_train_steps": steps},
            "checkpoint": {"save_steps": save_steps},
            "logging": {"log_steps": 1, "html_report": False},
        }
        return {
            "apiVersion": "adaptertraining.dev/v1alpha1",
            "kind": "AdapterTrainingJob",
            "metadata": {"name": name},
            "spec": {
                "nodes": nodes,
                "output": {"s3": {"uri": f"s3://checkpoints/{name}"}},
                "restart": {"maxRestarts": 1, "backoffSeconds": 0},
                "training": tiny.merged(tiny.settings(dataset), changes),
            },
        }

    return make


def write_yaml(path: Path, plain: Plain) -> Path:
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


def wait_until(condition: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.05)


@pytest.fixture
def ended() -> Iterator[Callable[[subprocess.Popen[str]], subprocess.Popen[str]]]:
    """Sees to it that processes started by a test do not outlive it."""
    started: list[subprocess.Popen[str]] = []

    def keep(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        started.append(process)
        return process

    yield keep
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
