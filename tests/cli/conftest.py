"""Runs the real command in processes of its own, and knows the smallest job that trains."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.support.command import Atj, MakeJob, Plain
from tests.operator.support.planes import plane
from tests.trainer.support import tiny

__all__ = ["plane"]


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
