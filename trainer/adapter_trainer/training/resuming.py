"""Where a run begins: at nothing, at its own newest checkpoint, or at another run's; and what is said of it."""

from collections.abc import Callable
from pathlib import Path

from adapter_api.training import TrainingConfig
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.reporting.report import Report
from adapter_trainer.training.length import Length
from adapter_trainer.training.state import TrainingState


def begin(
    state: TrainingState, folder: Path | None, samples: int, batch: int, processes: Processes,
    clock: Callable[[], float], show: Callable[[str], None], announce: Callable[[int], None],
) -> Report:  # fmt: skip
    """Loads the checkpoint, if there is one, takes up the learning-rate schedule, and opens the report; collective.

    Args:
        state: Of a run that has taken no step.
        folder: The checkpoint.
        samples: Places of one epoch.
        batch: Samples of one step of all processes.
        processes: Of this run.
        clock: For the report.
        show: Takes what is worth knowing.
        announce: Is told the steps of the whole run before that.

    Raises:
        TrainingError: The checkpoint must not, or cannot, be gone on from.
    """
    output = state.history.parent
    is_own = folder is not None and folder.resolve().parent == output.resolve()
    if folder is not None:
        state.load(folder, processes, is_own=is_own)
    length = length_of(state.config, samples, state.unit or batch)
    total_steps = length.total_steps(state.step, state.learned, batch)
    state.begin(length)
    announce(total_steps)
    report = Report(output, state.accelerator, processes, total_steps, clock, show)
    if folder is not None:
        report.saved_step = state.step if is_own else None
        for line in (f"resuming from {folder} at step {state.step} of {total_steps}", *state.notices):
            show(line)
    for line in notes_on_schedule(state, length):
        show(line)
    own = folder if is_own else None
    report.start(state.config, state.step, own, run_id=state.run_id, notices=state.notices)
    return report


def length_of(config: TrainingConfig, samples: int, unit: int) -> Length:
    """Of the run that a configuration asks for.

    Args:
        config: Says how many steps or epochs.
        samples: Places of one epoch.
        unit: Samples of one step as the run began.
    """
    optimization = config.optimization
    return Length(optimization.max_train_steps, samples * optimization.num_train_epochs, unit)


def notes_on_schedule(state: TrainingState, length: Length) -> list[str]:
    """PURE: what a learning-rate schedule does that one might not expect of it."""
    optimization = state.config.optimization
    name, notes = optimization.lr_scheduler, []
    if name == "cosine_with_restarts" and optimization.lr_num_cycles == 1:
        notes.append("optimization.lr_num_cycles: is 1, so that cosine_with_restarts does not restart")
    if not name.startswith("constant") and state.span not in (None, length.span):
        notes.append(
            f"optimization.lr_scheduler: {name} spanned {state.span} steps before, and spans {length.span} now; this "
            f"run continues at {length.position(state.step, state.learned):g} of them, with the rate of that place, "
            f"{state.rates.first:.3g}"
        )
    return notes
