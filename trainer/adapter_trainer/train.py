"""Trains from a configuration file: command line in, exit code and outcome.json out."""

import argparse
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapter_api.document import Document, Fault, InvalidDocument, read, validate
from adapter_api.progress import ExitCode, Outcome
from adapter_api.training import TrainingConfig
from adapter_trainer import beginning
from adapter_trainer.distributed import ranks
from adapter_trainer.outcome import is_repeated, put_aside, read_outcome, write_outcome

TRACKERS = ("tensorboard", "wandb")


def parser() -> argparse.ArgumentParser:
    """The command line; a flag overrides the configuration's field of the same meaning."""
    result = argparse.ArgumentParser(
        prog="train.py", description="Train SDXL adapters from a YAML configuration.", allow_abbrev=False
    )
    result.add_argument("--config", required=True, type=Path, help="configuration, as configs/example.yaml")
    result.add_argument("--output_dir", required=True, type=Path, help="where checkpoints and logs go")
    result.add_argument("--resume_from_checkpoint", metavar="latest|PATH", help="continue from a checkpoint")
    result.add_argument("--data_root_path", help="folder of the data")
    result.add_argument("--staged_models", type=Path, help="folder that s3:// addresses of models were fetched to")
    result.add_argument("--train_batch_size", type=int, help="samples per process and forward pass")
    result.add_argument("--gradient_accumulation_steps", type=int, help="forward passes per optimizer step")
    result.add_argument("--num_train_epochs", type=int, help="times to read every sample")
    result.add_argument("--max_train_steps", type=int, help="optimizer steps; overrides --num_train_epochs")
    result.add_argument("--learning_rate", type=float)
    result.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"))
    result.add_argument("--save_steps", type=int, help="optimizer steps between checkpoints")
    result.add_argument("--keep_last", help="newest checkpoints to keep, or 'all'")
    result.add_argument("--report_to", help=f"'all', 'none', or of {', '.join(TRACKERS)}, separated by commas")
    result.add_argument("--seed", type=int)
    return result


_FIELDS: dict[str, tuple[str, ...]] = {
    "data_root_path": ("data", "params", "data_root_path"),
    "train_batch_size": ("optimization", "train_batch_size"),
    "gradient_accumulation_steps": ("optimization", "gradient_accumulation_steps"),
    "num_train_epochs": ("optimization", "num_train_epochs"),
    "max_train_steps": ("optimization", "max_train_steps"),
    "learning_rate": ("optimization", "learning_rate"),
    "mixed_precision": ("optimization", "mixed_precision"),
    "save_steps": ("checkpoint", "save_steps"),
    "keep_last": ("checkpoint", "keep_last"),
    "report_to": ("logging", "report_to"),
    "seed": ("seed",),
}


def overridden(document: Document, arguments: argparse.Namespace) -> Document:
    """The document with the flags' values in it, so that one validation covers both.

    Raises:
        InvalidDocument: a flag whose text has no value.
    """
    data: dict[str, Any] = document.data
    for flag, path in _FIELDS.items():
        given = getattr(arguments, flag)
        if given is None:
            continue
        data = _with(data, path, _value(flag, given))
        if flag == "keep_last" and given == "all":
            for field in ("keep_every", "keep_best"):  # they add to keep_last
                data = _with(data, ("checkpoint", field), None)
        if flag == "num_train_epochs" and arguments.max_train_steps is None:
            data = _with(data, ("optimization", "max_train_steps"), None)
    return Document(document.source, data, document.lines, document.faults)


def _with(data: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    inner = data.get(path[0]) if isinstance(data, dict) else None
    return {**(data if isinstance(data, dict) else {}), path[0]: _with(inner or {}, path[1:], value)}


def _value(flag: str, given: Any) -> Any:
    if flag == "report_to":
        if given in ("all", "none"):
            return list(TRACKERS) if given == "all" else []
        return [name.strip() for name in given.split(",")]
    if flag == "keep_last":
        if given == "all":
            return None
        if not given.isdigit():
            raise InvalidDocument([Fault("--keep_last", (), f"{given!r} is neither a number nor 'all'")])
        return int(given)
    return given


def main(argv: list[str] | None = None) -> int:
    """Trains; returns the exit code. Every process of a launch runs this."""
    arguments = parser().parse_args(argv)
    beginning.end_with_torchrun()
    os.environ.update(ranks.by_node(os.environ))
    beginning.await_word()  # until then the output folder is the agent's
    rank = int(os.environ.get("RANK", "0"))
    if (repeated := _ended_before(arguments.output_dir)) is not None:
        return repeated
    if _is_first_of_node():
        # What an earlier launch left must not be taken for this one's.
        put_aside(arguments.output_dir, keeps=_restarts() > 0)
    try:
        config = validate(TrainingConfig, overridden(read(arguments.config), arguments))
    except InvalidDocument as error:
        return _end(arguments.output_dir, ExitCode.INVALID, "InvalidConfig", str(error), rank=rank)
    return _train(config, arguments, rank)


def _is_first_of_node() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def _restarts() -> int:
    """How often torchrun has started this node's processes anew in place."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _ended_before(output: Path) -> int | None:
    """The exit code that this node's processes ended with, when torchrun has restarted them though it cannot help."""
    if _restarts() == 0:
        return None
    outcome = read_outcome(output)
    if outcome is None:
        return None
    # A disk that is full stays full for the seconds that a restart in place takes.
    is_final = outcome.exit_code in {ExitCode.INVALID, ExitCode.STOPPED} or outcome.reason == "DiskFull"
    return outcome.exit_code if is_final or is_repeated(output, outcome) else None


def _train(config: TrainingConfig, arguments: argparse.Namespace, rank: int) -> int:
    beginning.import_libraries()  # slow: faults of the configuration are told before it
    import torch

    from adapter_trainer.checkpoint import checkpoint_folder
    from adapter_trainer.errors import TrainingError
    from adapter_trainer.training import announcement, loop, setup

    output, run = arguments.output_dir, None
    try:
        options = setup.RunOptions(output, arguments.resume_from_checkpoint, models=arguments.staged_models)
        run = setup.prepare(config, options)
        complete = loop.train(run)
        run.report.phase("ended", run.state.step)
        if complete:  # a stop has no time for it
            run.report.page.finish()
            for line in announcement.end(output, run.state.step):
                run.report.show(line)
        run.state.accelerator.end_training()
    except TrainingError as error:
        return _end(output, error.exit_code, error.reason, str(error), rank=rank, step=_step(run))
    except torch.OutOfMemoryError as error:
        remedy = "lower train_batch_size or resolution, or set unet_config.gradient_checkpointing"
        message = f"out of memory: {str(error).splitlines()[0]}; {remedy}"
        return _end(output, ExitCode.FAILED, "OutOfMemory", message, rank=rank, step=_step(run))
    except Exception as error:  # noqa: BLE001 - whatever it is, the folder's reader learns of it
        if checkpoint_folder.is_full(error):
            message = (
                f"{output}: no space left on the device; free some. The checkpoints before step {_step(run)} are kept"
            )
            return _end(output, ExitCode.FAILED, "DiskFull", message, rank=rank, step=_step(run))
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if not lost:
            traceback.print_exc()
        line = (str(error).splitlines() or [""])[0]
        message = f"another process of this run was lost: {line}" if lost else f"{type(error).__name__}: {line}"
        return _end(
            output, ExitCode.FAILED, "CommunicationFailed" if lost else "Failed", message, rank=rank, step=_step(run)
        )
    if complete:
        return _end(output, ExitCode.COMPLETE, "Complete", "", rank=rank, step=run.state.step)
    message = f"stopped at step {run.state.step} after saving it; run again to continue"
    return _end(output, ExitCode.STOPPED, "Stopped", message, rank=rank, step=run.state.step)


def _step(run: Any) -> int:
    return run.state.step if run is not None else 0


def _end(output: Path, code: ExitCode, reason: Any, message: str, *, rank: int, step: int = 0) -> int:
    if message and (rank == 0 or code not in (ExitCode.STOPPED, ExitCode.INVALID)):
        print(f"{'stopped' if code is ExitCode.STOPPED else 'error'}: {message}", file=sys.stderr)
    outcome = Outcome(exit_code=code, reason=reason, message=message[:8192], step=step, rank=rank, at=datetime.now(UTC))
    # A process that was left alone must not hide what the one that left it has written.
    is_news = reason != "CommunicationFailed" or read_outcome(output) is None
    if is_news and (_is_first_of_node() or code is not ExitCode.COMPLETE):
        try:
            write_outcome(output, outcome)
        except OSError as error:
            print(f"error: {output} cannot be written: {error.strerror}", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
