"""Runs of the trainer: in this process, or as one process a rank, forked from a server that has imported torch."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adapter_api.layout import OUTCOME_FILE
from adapter_api.progress import Outcome
from tests.support.ports import free_port
from tests.support.processes import check_allowed
from tests.support.repository import REPOSITORY
from tests.support.waiting import wait_until
from tests.trainer.support.tiny import Settings, write_settings

PATIENCE = 300.0
"""Seconds until a process that should have ended counts as hanging; nothing waits that long when all is well."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["adapter_trainer.training.setup", "adapter_trainer.sampling.gallery", "tests.trainer.support.runs"]
)


def environment() -> dict[str, str]:
    """What a trainer started from the command line finds: our packages, one thread, no network."""
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("api", "trainer"))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass
class Run:
    """The processes of one launch, rank by rank."""

    processes: list[BaseProcess]
    logs: list[Path]

    def wait(self) -> list[int]:
        """Exit codes, rank by rank. A process that hangs is killed, and fails the test."""
        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for rank in hanging:
            self.processes[rank].kill()
        assert not hanging, f"ranks {hanging} hang:\n{self.said}"
        return [int(process.exitcode if process.exitcode is not None else -1) for process in self.processes]

    def kill(self) -> None:
        """SIGKILL to every rank, as a lost node would."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def terminate(self, rank: int = 0) -> None:
        """SIGTERM to one rank."""
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)

    @property
    def said(self) -> str:
        return "\n".join(log.read_text(encoding="utf-8") for log in self.logs if log.exists())


def start(given: Settings, outputs: list[Path], *flags: str, folder: Path) -> Run:
    """Starts one process for each entry of `outputs`, its rank's output folder."""
    check_allowed()  # a fork server announces its forks to nobody
    port, processes, logs = free_port(), [], []
    for rank, output in enumerate(outputs):
        config = write_settings(folder / f"run-{time.monotonic_ns()}.yaml", given)
        arguments = ["--config", str(config), "--output_dir", str(output), *flags]
        ranks = {"RANK": str(rank), "WORLD_SIZE": str(len(outputs)), "LOCAL_RANK": str(rank)}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        log = folder / f"{config.stem}-{rank}.log"
        variables = {**ranks, **address} if len(outputs) > 1 else {"OMP_NUM_THREADS": "1"}
        process = _FORKS.Process(target=_child, args=(arguments, variables, str(log)), daemon=True)
        process.start()
        processes.append(process)
        logs.append(log)
    return Run(list(processes), logs)


def _child(arguments: list[str], variables: dict[str, str], log: str) -> None:
    os.environ.update(variables)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import torch

    from adapter_trainer.train import main

    torch.set_num_threads(1)
    code = main(arguments)
    sys.stdout.flush()
    sys.exit(code)


def finish(given: Settings, outputs: list[Path], *flags: str, folder: Path) -> list[int]:
    """Runs to the end; exit codes, rank by rank."""
    run = start(given, outputs, *flags, folder=folder)
    codes = run.wait()
    assert codes == [0] * len(codes), run.said
    return codes


def wait_for_step(run: Run, output: Path, step: int) -> None:
    """Until a run has reported a step."""
    _wait(run, f"step {step}", lambda: any(line["step"] >= step for line in history(output)))


def wait_for_phase(run: Run, output: Path, phase: str) -> None:
    """Until a run reports that it is there."""
    file = output / "progress.json"
    _wait(run, phase, lambda: file.exists() and json.loads(file.read_text(encoding="utf-8"))["phase"] == phase)


def _wait(run: Run, what: str, holds: Callable[[], bool]) -> None:
    def has_happened() -> bool:
        assert any(process.is_alive() for process in run.processes), f"ended before {what}:\n{run.said}"
        return holds()

    wait_until(what, has_happened, PATIENCE, state=lambda: run.said, pause=0.002)


def history(output: Path) -> list[dict[str, Any]]:
    """Complete lines of metrics.jsonl."""
    try:
        text = (output / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def losses(output: Path) -> dict[int, float]:
    """Reported losses by step."""
    return {line["step"]: line["loss"] for line in history(output) if "loss" in line}


def tensors_of(checkpoint: Path) -> dict[str, bytes]:
    """Every file of a checkpoint that holds tensors, by name."""
    found = sorted(checkpoint.rglob("*.safetensors"))
    return {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in found}


def outcome(output: Path) -> Outcome:
    return Outcome.model_validate_json((output / OUTCOME_FILE).read_bytes())


def train_here(given: Settings, output: Path, *flags: str) -> int:
    """Trains in this process; the exit code."""
    from adapter_trainer.train import main

    output.parent.mkdir(parents=True, exist_ok=True)
    config = write_settings(output.parent / f"{output.name}.yaml", given)
    return main(["--config", str(config), "--output_dir", str(output), *flags])
