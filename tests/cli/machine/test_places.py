"""The nodes of a local run share the cores of this machine, unless someone says how many threads there are to be."""

import os
from pathlib import Path
from typing import Any

import pytest

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import launch
from atj.machine.places import places, threads_of, trainer_environment
from atj.storage.output_folder import OutputFolder
from tests.support.jobs import quickstart


def threads(folder: Path, **spec: Any) -> list[str | None]:
    """OMP_NUM_THREADS of every node's trainer."""
    plain = quickstart("here")
    plain["spec"] |= spec
    job = AdapterTrainingJob.model_validate(plain)
    found = [launch(job, "run", 1, place).train.env for place in places(job, OutputFolder(folder))]
    taken = [{**trainer_environment(job), **env}.get("OMP_NUM_THREADS") for env in found]
    assert set(taken) == {str(threads_of(job))}, "what `atj plan` measures with"
    return taken


def test_processes_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert threads(tmp_path, nodes=2) == ["4", "4"]
    assert threads(tmp_path, nodes=16)[0] == "1"


def test_a_number_of_threads_that_is_said_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(tmp_path, nodes=1) == ["3"]
    said = {"env": [{"name": "OMP_NUM_THREADS", "value": "1"}]}
    assert threads(tmp_path, nodes=1, pod=said) == ["1"]
