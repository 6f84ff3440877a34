"""How long `atj run` takes to the first step: agents, embedded store, staging, launch, imports, model."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quickstart import local_job

TITLE = "Time to the first step"


def measure() -> str:
    """The section's text."""
    with local_job() as job:
        job["spec"]["training"]["logging"] = {"log_steps": 1}
        seconds = {nodes: seconds_to_first_step(_with_nodes(job, nodes)) for nodes in (1, 2)}
    return f"""\
From starting `atj run configs/quickstart.yaml` (data in a local folder, no download) to the first reported step: the
embedded store, claim and restore, torchrun, imports, checking the data, building the model, one step.

| nodes | seconds |
|---|---|
| 1 | {seconds[1]:.1f} |
| 2 | {seconds[2]:.1f} |"""


def _with_nodes(job: dict[str, Any], nodes: int) -> dict[str, Any]:
    return {**job, "spec": {**job["spec"], "nodes": nodes}}


def seconds_to_first_step(job: dict[str, object]) -> float:
    """Wall-clock seconds from starting `atj run` until node 0's trainer reports a step, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return first_step(job, Path(folder) / "output")


def first_step(job: dict[str, object], output: Path, limit: float = 300) -> float:
    """Runs a job until node 0's trainer reports a step, and then stops it.

    Raises:
        RuntimeError: the run ended, or `limit` seconds passed, without a step.
    """
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    started = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-m", "atj.main", "run", str(file), "--output", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while time.monotonic() - started < limit:
            nodes = output.glob("node-*/output/metrics.jsonl")
            if any('"loss"' in path.read_text(encoding="utf-8") for path in nodes):
                return time.monotonic() - started
            if run.poll() is not None:
                raise RuntimeError(f"atj run ended with {run.returncode}: {(run.stderr or sys.stderr).read()!r}")
            time.sleep(0.05)
        raise RuntimeError(f"no step within {limit} s")
    finally:
        run.terminate()
        run.wait(120)
