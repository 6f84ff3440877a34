"""A local checkpoint folder, as it is read: complete or absent, verified before it is used.

    checkpoint-<step>/
        training.yaml trainer_state.json metrics.json versions.json history.jsonl   what made it, and where it stands
        model/<part>.safetensors   ema.safetensors                      weights; of a sharded run, a file for each rank
        optimizer.safetensors optimizer.json scheduler.json accelerate.json
        random-rank-<rank>.safetensors
        complete-rank-<rank>.json                                       every file of one writing node, with its size, and its pass

Each node writes what its own ranks have; rank 0's has the model. `saving` and `writer` write it.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from adapter_api.checkpoint import step_of
from adapter_api.layout import METRICS_FILE, STATE_FILE
from adapter_api.retention import Candidate, Policy, kept
from adapter_trainer.checkpoint import tensor_files
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DamagedCheckpoint

"""Present in the folder that has the model: rank 0's, or any that was restored from storage."""


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no room; safetensors gives the system's code in its text alone."""
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "os error 28" in str(error)


def fault_of(folder: Path) -> str | None:
    """Why a checkpoint folder cannot be trusted; None when every file that was sealed is there in full, of one pass."""
    seals = sorted(folder.glob("complete-rank-*.json"))
    if not seals:
        return "has no complete-rank-*.json, so it was never finished"
    passes = set()
    for seal in seals:
        try:
            sealed = json.loads(seal.read_text(encoding="utf-8"))
            files: dict[str, int] = sealed["files"]
            passes.add(sealed.get("pass", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{seal.name} cannot be read: {error}"
        if len(passes) > 1:
            return f"{seal.name} is of another pass than {seals[0].name}"
        for name, size in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
    return None


class Held(NamedTuple):
    """What a complete folder of a checkpoint holds: of several nodes', each holds a part."""

    state: bool
    """Rank 0's records, and with them all tensors that are not in shards."""
    tensors: list[str]
    pass_id: str = ""
    """The pass that has saved it; empty in what older builds have written."""


def complete_steps(output: Path) -> dict[int, Held]:
    """The checkpoints that are complete as this folder has them, by step."""
    found = {}
    for folder in output.glob("checkpoint-*") if output.is_dir() else ():
        step = step_of(folder.name)
        if step is not None and folder.is_dir() and fault_of(folder) is None:
            found[step] = Held((folder / STATE_FILE).is_file(), tensor_files.names_in(folder), _pass_of(folder))
    return found


def _pass_of(folder: Path) -> str:
    """Of a folder that is complete."""
    seal = min(folder.glob("complete-rank-*.json"))
    return str(json.loads(seal.read_text(encoding="utf-8")).get("pass", ""))


def latest_step(output: Path, processes: Processes) -> int | None:
    """The step to resume from; collective."""
    return newest_of(processes.gather(complete_steps(output)))


def newest_of(seen: list[dict[int, Held]]) -> int | None:
    """The newest step that is complete in every rank's folder and whose state they hold together.

    Without one, the newest whose state is there in spite of it: a node that lost its folder costs its random state only,
    unless it had shards. What nodes hold of different passes belongs to no one checkpoint. A step that every node has saved
    in one pass is never saved again by a later one: what a node has uploaded of it stands.
    """
    whole = {step for step in set().union(*seen) if _is_whole([steps[step] for steps in seen if step in steps])}
    everywhere = whole.intersection(*seen)
    return max(everywhere or whole, default=None)


def _is_whole(held: list[Held]) -> bool:
    names = {name for each in held for name in each.tensors}
    if len({each.pass_id for each in held}) > 1:
        return False
    return any(each.state for each in held) and not tensor_files.missing_shards(sorted(names))


def check(folder: Path) -> None:
    """Raises DamagedCheckpoint unless the folder is complete."""
    if not folder.is_dir():
        raise DamagedCheckpoint(f"{folder}: there is no such checkpoint folder")
    if (fault := fault_of(folder)) is not None:
        raise DamagedCheckpoint(f"{folder}: {fault}; use another checkpoint")


def clear_remains(output: Path, processes: Processes) -> None:
    """Deletes what killed processes left half written or half deleted."""
    if processes.is_leader:
        for remains in (*output.glob(".checkpoint-*.tmp"), *output.glob(".checkpoint-*.deleted")):
            shutil.rmtree(remains, ignore_errors=True)


def doomed(output: Path, policy: Policy, newest: int, metrics: dict[int, dict[str, float]]) -> list[int]:
    """Steps of the local checkpoints that the policy does not keep when `newest` stands."""
    if policy.last is None:
        return []
    steps = {step for path in output.glob("checkpoint-*") if (step := step_of(path.name)) is not None}
    candidates = [Candidate(step, metrics.get(step, {})) for step in {*steps, newest} if step <= newest]
    return sorted(steps & ({candidate.step for candidate in candidates} - kept(candidates, policy, in_use={newest})))


def metrics_of(output: Path) -> dict[int, dict[str, float]]:
    """The figures of each checkpoint by step; of one whose file cannot be read, none."""
    found = {}
    for file in output.glob(f"checkpoint-*/{METRICS_FILE}"):
        step = step_of(file.parent.name)
        try:
            found[step] = figures_in(file.read_bytes())
        except (OSError, ValueError):
            continue
    return {step: figures for step, figures in found.items() if step is not None}


def figures_in(text: bytes) -> dict[str, float]:
    """The numbers in a metrics.json.

    Raises:
        ValueError: it is none.
    """
    figures = json.loads(text)
    if not isinstance(figures, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the same fault as text that is no JSON
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}
