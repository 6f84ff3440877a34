"""How long `atj run` takes to the first step, and what commands and processes cost at their start: this build and an older one."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil
import yaml

from benchmarks.older_build import COMMIT, environment, older_build
from benchmarks.quickstart import ROOT, local_job

TITLE = "Time to the first step"
RUNS = 3
"""Of each build, one after the other."""
COMMANDS = 9
"""Runs of commands that take less than a second."""
MEBIBYTE = 1 << 20

Samples = list[float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class FirstStep:
    """A run that has reported its first step."""

    seconds: float
    """From its start."""
    processor_seconds: float
    """User and system time of all its processes until then."""
    command_bytes: int
    """Peak resident memory of the `atj run` process, without its children."""
    agent_bytes: int
    """Peak resident memory of node 0's `adapter_agent sync`."""


def measure() -> str:
    """The section's text."""
    with local_job() as job, older_build() as older, tempfile.TemporaryDirectory() as folder:
        job["spec"]["training"]["logging"] = {"log_steps": 1}
        builds = (older, ROOT)
        steps = {nodes: alternately(builds, RUNS, _stepping(job, nodes)) for nodes in (1, 2)}
        file = Path(folder) / "job.yaml"
        file.write_text(yaml.safe_dump(job), encoding="utf-8")
        config = Path(folder) / "training.yaml"
        config.write_text(yaml.safe_dump(job["spec"]["training"]), encoding="utf-8")
        commands = {
            "`atj --help`": ["-m", "atj.main", "--help"],
            "`atj --version`": ["-m", "atj.main", "--version"],
            "`atj validate`, a training configuration": ["-m", "atj.main", "validate", str(config)],
            "`atj validate`, a job": ["-m", "atj.main", "validate", str(file)],
            "the operator's imports": ["-c", "import adapter_operator.__main__"],
            "a trainer's imports": ["-c", _IMPORTS_OF_A_TRAINER],
        }
        costs = {name: alternately(builds, COMMANDS, _costing(arguments)) for name, arguments in commands.items()}
        operators = alternately(builds, RUNS, _peak_of_operator)
    rows = [_row(f"first step, {nodes} node{'s' * (nodes > 1)}, s", _each(steps[nodes], _seconds)) for nodes in (1, 2)]
    rows += [
        _row(f"the same, CPU-s of all processes, {nodes} node{'s' * (nodes > 1)}", _each(steps[nodes], _processor_of))
        for nodes in (1, 2)
    ]
    rows += [_row(f"{name}, CPU-s", _each(found, _processor)) for name, found in costs.items()]
    rows += [
        _row("memory of `atj run` beside training, MiB", _each(steps[2], lambda step: step.command_bytes / MEBIBYTE)),
        _row("memory of an agent (`sync`), MiB", _each(steps[2], lambda step: step.agent_bytes / MEBIBYTE)),
        _row("memory of the operator, imported, MiB", _each(operators, lambda peak: peak / MEBIBYTE)),
    ]
    table = "\n".join(rows)
    return f"""\
From starting `atj run configs/digits.yaml` (data in a local folder, no download) to the first reported step: the
embedded store, claim and restore, torchrun, imports, checking the data, building the model, one step. The same with the
build of commit {COMMIT}, the two in turn: medians of {RUNS} runs, and of {COMMANDS} of the commands. CPU-seconds are user and
system time. Memory is the peak of what is resident, of one process without its children, on two nodes; the operator's is
measured once it is imported, without an API server to watch.

| | {COMMIT} | now | ratio |
|---|---|---|---|
{table}"""


_IMPORTS_OF_A_TRAINER = """
import adapter_trainer.train
try:
    from adapter_trainer.beginning import import_libraries
except ImportError:
    import torch
    from adapter_trainer import checkpoint, loop, setup
else:
    import_libraries()
"""


def alternately(
    builds: tuple[Path, Path], times: int, run: Callable[[Path], Result]
) -> tuple[list[Result], list[Result]]:
    """What `run` returns of the older and of this build, in turn, so that whatever else the machine does meets both."""
    found: tuple[list[Result], list[Result]] = ([], [])
    for _ in range(times):
        for build, results in zip(builds, found, strict=True):
            results.append(run(build))
    return found


def _row(name: str, values: tuple[list[float], list[float]]) -> str:
    before, after = (median(each) for each in values)
    return f"| {name} | {before:.3g} | {after:.3g} | {after / before:.2f} |"


def _each(found: tuple[list[Result], list[Result]], figure: Callable[[Result], float]) -> tuple[Samples, Samples]:
    before, after = ([figure(each) for each in results] for results in found)
    return before, after


def _seconds(step: FirstStep) -> float:
    return step.seconds


def _processor_of(step: FirstStep) -> float:
    return step.processor_seconds


def _processor(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _costing(arguments: list[str]) -> Callable[[Path], resource.struct_rusage]:
    """What a command uses from its start to its end, its children included."""

    def run(root: Path) -> resource.struct_rusage:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{arguments} ended with {process.returncode} in {root}")
        return usage

    return run


def _peak_of_operator(root: Path) -> int:
    """Told by itself: what a parent is told of its children counts what they had before they became another program."""
    program = "import adapter_operator.__main__; print(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(root), stdout=subprocess.PIPE, text=True, check=True
    )
    return _peak_in(done.stdout)


def _stepping(job: dict[str, Any], nodes: int) -> Callable[[Path], FirstStep]:
    job = {**job, "spec": {**job["spec"], "nodes": nodes}}

    def run(root: Path) -> FirstStep:
        with tempfile.TemporaryDirectory() as folder:
            return observed_first_step(job, Path(folder) / "output", root)

    return run


def first_step(job: dict[str, object], output: Path, limit: float = 300) -> float:
    """Wall-clock seconds from starting `atj run` until node 0's trainer reports a step; the run is then stopped.

    Raises:
        RuntimeError: the run ended, or `limit` seconds passed, without a step.
    """
    return observed_first_step(job, output, ROOT, limit).seconds


def observed_first_step(job: dict[str, object], output: Path, root: Path, limit: float = 300) -> FirstStep:
    """The same for the build at `root`, with the memory that its processes have needed until then."""
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    started = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-m", "atj.main", "run", str(file), "--output", str(output)],
        env=environment(root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while time.monotonic() - started < limit:
            nodes = output.glob("node-*/output/metrics.jsonl")
            if any('"loss"' in path.read_text(encoding="utf-8") for path in nodes):
                return FirstStep(
                    time.monotonic() - started,
                    _processor_of_all(run.pid),
                    peak_of(run.pid),
                    peak_of(_agent_of(run.pid)),
                )
            if run.poll() is not None:
                raise RuntimeError(f"atj run ended with {run.returncode}: {(run.stderr or sys.stderr).read()!r}")
            time.sleep(0.05)
        raise RuntimeError(f"no step within {limit} s")
    finally:
        run.terminate()
        run.wait(120)


def _processor_of_all(run: int) -> float:
    """What a process and its descendants have used, those that have ended included."""
    root = psutil.Process(run)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def _agent_of(run: int) -> int:
    """The process of node 0's agent."""
    for process in psutil.Process(run).children():
        words = process.cmdline()
        if "adapter_agent" in words and "sync" in words and "--node=0" in words:
            return process.pid
    raise RuntimeError("no agent runs beside training")


def peak_of(process: int) -> int:
    """The most bytes that a process has had resident."""
    return _peak_in(Path(f"/proc/{process}/status").read_text(encoding="utf-8"))


def _peak_in(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
