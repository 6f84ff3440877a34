"""The step loop: takes optimizer steps, saves, evaluates, draws, and stops when asked to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.data.cache.encodings import LATENTS
from adapter_trainer.data.cache.resting import Resting
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.data.samples import Batch, Batches
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import Interrupted, StopRequest
from adapter_trainer.errors import NonFiniteLoss
from adapter_trainer.model import objective
from adapter_trainer.model.adapter_model import AdapterModel, Conditions
from adapter_trainer.model.first_stage import latents_of
from adapter_trainer.model.objective import NoiseSchedule
from adapter_trainer.reporting.report import Report
from adapter_trainer.sampling.evaluation import Evaluation
from adapter_trainer.sampling.gallery import Gallery
from adapter_trainer.training.dataset import Dataset
from adapter_trainer.training.join import Joined
from adapter_trainer.training.learner import Learner
from adapter_trainer.training.loss_watch import LARGEST_LOSS, LossMean, Watch, told
from adapter_trainer.training.state import TrainingState

MAX_OVERFLOWS = 40
"""Number of overflows in a row that end the run: the scale has then been halved to nothing."""
_REMEDY = (
    "the checkpoints before it are kept. Lower optimization.learning_rate, set max_grad_norm, or train with "
    "mixed_precision bf16 or no"
)


@dataclass(frozen=True)
class Nulls:
    """The empty condition, for `null_condition: encoded`."""

    input_ids: list[Tensor]
    """Tokens of the empty caption, for each text encoder."""
    encoded: dict[str, Tensor]
    """Encodings of the empty caption and picture by frozen encoders that have left the device."""


@dataclass
class Training:
    """A run that is ready to take its next step."""

    joined: Joined
    dataset: Dataset
    learner: Learner
    schedule: NoiseSchedule
    batches: Batches
    nulls: Nulls
    resting: Resting
    """Encoders that no step needs; they are loaded again to draw."""
    report: Report
    saver: Saver
    watch: Watch
    losses: LossMean
    evaluation: Evaluation | None
    gallery: Gallery
    overflows: int = 0
    """Number of passes in a row that gave no step."""

    @property
    def state(self) -> TrainingState:
        """The state that changes during training."""
        return self.learner.state

    @property
    def module(self) -> nn.Module:
        """state.model, wrapped for this number of processes."""
        return self.learner.module

    @property
    def processes(self) -> Processes:
        """All processes of the run."""
        return self.joined.processes

    @property
    def stop(self) -> StopRequest:
        """The request to stop, as all processes see it."""
        return self.joined.stop

    @property
    def rows(self) -> list[Row]:
        """The samples."""
        return self.dataset.rows

    @property
    def samples(self) -> int:
        """Number of samples that one epoch reads."""
        return self.dataset.length

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        return self.report.total_steps


def train(run: Training) -> bool:
    """Takes steps until the last one, or until asked to stop; saves on the way and at the end.

    Returns:
        Whether all steps were taken, and the picture grid of the last step is drawn.
    """
    try:
        take_steps(run)
        note_saved(run, run.saver.finish())
    except OSError as error:
        if (failure := run.saver.failure()) is not None:
            raise failure from error  # the save that took the room is the reason, whoever met the want of it first
        raise
    finally:
        run.saver.close()
    return run.state.step >= run.total_steps and not run.gallery.is_due(run.state.step, is_last=True)


def take_steps(run: Training) -> None:
    """Takes steps and saves; the last save may still be in progress afterwards."""
    state, config = run.state, run.state.config
    run.report.begin_interval()
    while state.step < run.total_steps:
        run.stop.begin_step(failed=run.saver.is_failed)
        before = state.step
        take_step(run)
        stopping = run.stop.end_step()
        note_saved(run, run.saver.finish() if run.stop.has_failure else run.saver.newest())
        if state.step == before:
            if stopping and (state.step == 0 or is_saved(run)):
                return
            if not stopping:
                continue  # nothing is new but the place in the data, and what was due at this step has been done
        last = stopping or state.step == run.total_steps
        saving = last or state.step % config.checkpoint.save_steps == 0
        if saving or state.step % config.logging.log_steps == 0:
            report_loss(run)
        if saving and save(run, stopping=stopping):
            return
    if not is_saved(run):
        save(run, stopping=False)  # nothing was left to do, but this output is to hold a continued run's result
    else:
        draw(run)  # the attempt before may have been stopped before or while it drew


def is_saved(run: Training) -> bool:
    """Whether the checkpoint of this step exists or is being written."""
    return run.state.step in (run.report.saved_step, run.saver.step)


def take_step(run: Training) -> Tensor:
    """Takes one optimizer step, unless gradients overflow. Returns this process's mean loss, a scalar on the device.

    After an overflow, float16's scale is lowered, and the samples only count as read.

    Raises:
        NonFiniteLoss: Gradients overflow again and again, whatever the scale.
    """
    state, accelerator, times = run.state, run.state.accelerator, run.report.times
    losses, samples = [], 0
    times.begin_step()
    for _ in range(accelerator.gradient_accumulation_steps):
        batch = next(run.batches).to(accelerator.device)
        times.end("data")
        with accelerator.accumulate(run.module):
            each = losses_of(run.module, state.model, run.schedule, batch, run.nulls)
            run.watch.observe(state.step + 1, each, batch.indices)
            loss = each.mean() if batch.shares is None else (each * batch.shares).mean()
            times.end("forward")
            run.batches.read_ahead()
            accelerator.backward(loss)
            times.end("backward")
            if accelerator.sync_gradients and state.config.optimization.max_grad_norm is not None:
                accelerator.clip_grad_norm_((p for _, p in state.trained()), state.config.optimization.max_grad_norm)
            times.end("optimizer")
            run.saver.settle()
            times.end("save")
            scale = _scale(run)
            state.optimizer.step()
            overflowed = _scale(run) < scale
            state.optimizer.zero_grad()
        times.end("optimizer")
        # What is read to fill a batch moves the weights less, and is no smaller a loss.
        losses.append(loss.detach() if batch.shares is None else loss.detach() / batch.shares.mean())
        samples += len(batch.timesteps)
    together = samples * run.processes.world_size
    if overflowed:
        state.skip(together)
        _refuse_endless(run)
    else:
        state.advance(together)
        run.overflows = 0
    times.end_step()
    run.report.count(together)
    loss = torch.stack(losses).mean()
    run.losses.add(loss)
    return loss


def _scale(run: Training) -> float:
    """Returns the factor that losses are multiplied by for float16; an overflow lowers it in place of a step.

    Accelerate's `optimizer_step_was_skipped` misses an overflow in a fused optimizer, which torch calls in any case and which
    checks for the overflow itself (accelerate 1.15, `optimizer.py`; torch 2.15, `amp/grad_scaler.py`).
    """
    scaler = run.state.accelerator.scaler
    return 1.0 if scaler is None else float(scaler.get_scale())


def _refuse_endless(run: Training) -> None:
    run.overflows += 1
    if run.overflows >= MAX_OVERFLOWS:
        raise NonFiniteLoss(
            f"step {run.state.step + 1}: gradients overflowed in {run.overflows} passes in a row, however small the losses "
            f"were scaled; {_REMEDY}"
        )


def losses_of(module: nn.Module, model: AdapterModel, schedule: NoiseSchedule, batch: Batch, nulls: Nulls) -> Tensor:
    """Returns the objective of each sample of a batch, [B]; `module` is `model`, wrapped or not."""
    latents = latents_of(model.first_stage, batch.images, batch.encoded.get(LATENTS), batch.posterior_noise)
    noisy = schedule.add_noise(latents, batch.noise, batch.timesteps)
    conditions = Conditions(
        batch.columns, batch.dropped, batch.time_ids, batch.input_ids, nulls.input_ids, batch.encoded, nulls.encoded
    )
    prediction = module(noisy, batch.timesteps, conditions)
    target = schedule.target(latents, batch.noise, batch.timesteps)
    return objective.losses(prediction, target, schedule.weights(batch.timesteps))


def report_loss(run: Training) -> None:
    """Reports the mean loss since the last report, over all processes.

    Raises:
        NonFiniteLoss: The loss is NaN, or larger than a report holds, in a step since the last report; names the samples.
    """
    state = run.state
    reduced: Tensor = state.accelerator.reduce(torch.stack([run.losses.take(), run.watch.is_bad]), reduction="mean")
    mean, is_bad = reduced.tolist()
    if is_bad or not abs(mean) <= LARGEST_LOSS:
        found = told(run.processes.gather(run.watch.found(run.rows)))
        raise NonFiniteLoss(f"step {state.step}: {found}; {_REMEDY}")
    epoch = state.seen // run.samples
    state.metrics = run.report.step(state.step, epoch, mean, state.rates.first)


def save(run: Training, *, stopping: bool) -> bool:
    """Starts to save a checkpoint, after which those that are no longer kept are removed; collective.

    The model is evaluated before the save, so that the checkpoint holds its own figures, and pictures are drawn after it;
    neither happens if there is no time.

    Returns:
        Whether the run must stop: because it was told so, or was asked to during the evaluation or the drawing.

    Raises:
        NonFiniteLoss: The last step's gradient overflowed; such weights must not replace those that can be resumed.
    """
    if not run.state.is_finite(run.processes):
        raise NonFiniteLoss(f"step {run.state.step}: weights became NaN or infinite; {_REMEDY}")
    stopping = stopping or not evaluate(run)
    run.report.phase("saving", run.state.step)
    note_saved(run, run.saver.finish())
    run.saver.begin(run.state.step, run.state.contents(run.processes))
    stopping = stopping or not draw(run)
    run.report.phase("training", run.state.step)
    run.report.begin_interval()
    return stopping


def note_saved(run: Training, step: int | None) -> None:
    """Reports a checkpoint that has reached the disk, if there is one."""
    if step is not None:
        run.report.saved(step, run.saver.seconds)


def evaluate(run: Training) -> bool:
    """Measures the model as sampling would use it, if the configuration asks for that; collective.

    Returns:
        Whether the run may continue. If it is asked to stop, the evaluation ends early, because the state must be saved.
    """
    if run.evaluation is None:
        return True
    run.report.phase("evaluating", run.state.step)
    try:
        with run.state.averaged(), run.resting.awake():
            figures = run.evaluation.measure()
    except Interrupted:
        return False
    run.state.metrics |= figures
    run.report.evaluated(run.state.step, figures)
    return True


def draw(run: Training) -> bool:
    """Draws the picture grid of this step, if one is due; collective.

    Returns:
        Whether the run may continue. If it is asked to stop, it does not finish the grid.
    """
    step = run.state.step
    if not run.gallery.is_due(step, is_last=step >= run.total_steps):
        return True
    run.report.phase("sampling", step)
    run.saver.settle()  # the average takes the place of weights that are being copied
    try:
        with run.state.averaged(), run.resting.awake():
            path = run.gallery.draw(step)
    except Interrupted:
        return False
    if path is not None:
        run.report.pictures(step, path)
    return True
