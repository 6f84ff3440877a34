"""A local checkpoint folder: complete or absent, verified before it is used.

    checkpoint-<step>/
        training.yaml trainer_state.json metrics.json versions.json history.jsonl   what made it, and where it stands
        model/<part>.safetensors   ema.safetensors                      weights
        optimizer.safetensors optimizer.json scheduler.json accelerate.json
        random-rank-<rank>.safetensors
        complete-rank-<rank>.json                                       every file of one writing node, with its size

Each node writes what its own ranks have; rank 0's has the model. A folder gets its name by one rename, after
everything in it is on disk.
"""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from adapter_api.checkpoint import folder_name, step_of
from adapter_api.retention import Candidate, Policy, kept
from adapter_trainer.errors import DamagedCheckpoint, DiskFull, TrainingError
from adapter_trainer.files import fsync_path
from adapter_trainer.processes import Processes

METRICS_FILE = "metrics.json"
STATE_FILE = "trainer_state.json"
"""Present in the folder that has the model: rank 0's, or any that was restored from storage."""


def write(output: Path, step: int, fill: Callable[[Path], None], processes: Processes) -> Path:
    """Writes checkpoint-<step>; collective. `fill` writes this rank's files into the folder that it is given.

    Raises:
        DiskFull: no room; nothing is left behind, and older checkpoints stand.
        TrainingError: any other reason why a rank could not write.
    """
    aside, final = output / f".{folder_name(step)}.tmp", output / folder_name(step)

    def begin() -> None:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)

    def finish() -> None:
        files = {path.relative_to(aside).as_posix(): path for path in sorted(aside.rglob("*")) if path.is_file()}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        seal = aside / f"complete-rank-{processes.rank:05d}.json"
        seal.write_text(json.dumps({"step": step, "files": sizes}, indent=1), encoding="utf-8")
        for path in (*files.values(), seal, *(folder for folder in aside.rglob("*") if folder.is_dir()), aside):
            fsync_path(path)
        if final.exists():
            shutil.rmtree(final)  # what an earlier, incompatible attempt left under this name
        aside.replace(final)
        fsync_path(output)

    for act in (begin if processes.is_leader else None, lambda: fill(aside), finish if processes.is_leader else None):
        error = processes.first_error(_attempt(act, final))
        if error is not None:
            if processes.is_leader:
                shutil.rmtree(aside, ignore_errors=True)
            raise error
    return final


def _attempt(act: Callable[[], None] | None, final: Path) -> Exception | None:
    if act is None:
        return None
    try:
        act()
    except (OSError, SafetensorError) as error:
        if is_full(error):
            return DiskFull(
                f"{final}: no space left on the device; free some, or keep fewer checkpoints "
                "(checkpoint.keep_last). The checkpoints before this one stand"
            )
        return TrainingError(f"{final}: cannot be written: {error}")
    return None


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no room; safetensors gives the system's code in its text alone."""
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "os error 28" in str(error)


def fault_of(folder: Path) -> str | None:
    """Why a checkpoint folder cannot be trusted; None when every file that was sealed is there in full."""
    seals = sorted(folder.glob("complete-rank-*.json"))
    if not seals:
        return "has no complete-rank-*.json, so it was never finished"
    for seal in seals:
        try:
            files: dict[str, int] = json.loads(seal.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{seal.name} cannot be read: {error}"
        for name, size in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
    return None


def complete_steps(output: Path) -> dict[int, bool]:
    """Steps of the checkpoints that are complete, and whether each holds the model."""
    found = {}
    for folder in output.glob("checkpoint-*") if output.is_dir() else ():
        step = step_of(folder.name)
        if step is not None and folder.is_dir() and fault_of(folder) is None:
            found[step] = (folder / STATE_FILE).is_file()
    return found


def latest_step(output: Path, processes: Processes) -> int | None:
    """The newest step that is complete in every output folder and whose model is in one of them; collective.

    Without one, the newest whose model is complete anywhere: a node that lost its folder costs its random state only.
    """
    seen = processes.gather(complete_steps(output))
    whole = {step for steps in seen for step, has_model in steps.items() if has_model}
    everywhere = whole.intersection(*seen)
    return max(everywhere or whole, default=None)


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


def retain(output: Path, policy: Policy, newest: int, processes: Processes) -> None:
    """Deletes the checkpoints that the policy does not keep, after the newest stands; collective.

    Every folder's leader deletes in its own folder, so no two processes race for one. Rank 0's has the metrics.
    """
    processes.barrier()
    if policy.last is None:
        return
    metrics = processes.gather(_metrics_of(output) if processes.is_main and policy.best is not None else {})[0]
    if not processes.is_leader:
        return
    steps = [step for path in output.glob("checkpoint-*") if (step := step_of(path.name)) is not None]
    candidates = [Candidate(step, metrics.get(step, {})) for step in steps if step <= newest]
    for step in {candidate.step for candidate in candidates} - kept(candidates, policy, in_use={newest}):
        doomed = output / f".{folder_name(step)}.deleted"
        # Renamed first: a folder that is half deleted must not look like a checkpoint.
        shutil.rmtree(doomed, ignore_errors=True)
        (output / folder_name(step)).replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _metrics_of(output: Path) -> dict[int, dict[str, float]]:
    """The figures of each checkpoint by step; of one whose file cannot be read, none."""
    found = {}
    for file in output.glob(f"checkpoint-*/{METRICS_FILE}"):
        step = step_of(file.parent.name)
        try:
            figures = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if step is not None and isinstance(figures, dict):
            found[step] = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return found
