"""From counted work to seconds: on a device of known speed, or on this one, measured."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import flop_count
from adapter_trainer.forecast.device_speed import GIB, Device, known_device, measured_bandwidth, measured_flops
from adapter_trainer.forecast.footprint import Footprint, footprint
from adapter_trainer.model.registry import WEIGHT_TYPES

EFFICIENCY = 0.4
"""Share of its peak that a GPU is taken to reach where nothing was measured: SDXL inference is published at 0.31 to 0.52."""
TIMED_FLOPS = 5e11
"""Up to so much work a step, the step itself is timed: for small models it is overhead that counts, not FLOPs."""
UPDATE_BYTES = {"AdamW": 28, "AdamW8bit": 16, "Prodigy": 40, "Adafactor": 16}
"""Read and written for each trained number: it itself, its gradient, and what the optimizer keeps of it."""
CLIPPING_BYTES, AVERAGE_BYTES = 12, 12
"""Also for each, where gradients are clipped (read for the norm; read and written), and where an average is kept."""
RUNTIME_BYTES = {"cpu": int(0.75 * GIB), "cuda": int(0.6 * GIB)}
"""What Python, torch and its libraries hold before the model; on a GPU, its context."""


@dataclass(frozen=True)
class Forecast:
    """What one training process will take."""

    work: flop_count.Work
    held: Footprint
    device: str
    basis: str
    """Where the speed comes from."""
    seconds_per_pass: float
    """Forward and backward of one batch, the encoders' outputs being cached."""
    seconds_of_encoders: float
    """Of one batch, where they are not."""
    seconds_of_update: float
    """Of the optimizer's step, in which memory is read and written and next to nothing is computed."""
    libraries: int
    """Bytes that are held before there is a model."""
    available: int | None
    """Bytes that the device has, if that is known."""

    @property
    def memory(self) -> int:
        """Bytes at the peak."""
        return self.held.bytes + self.libraries


def forecast(
    config: TrainingConfig,
    device: Device | None,
    efficiency: float = EFFICIENCY,
    clock: Callable[[], float] = time.perf_counter,
    world_size: int = 1,
    threads: int | None = None,
) -> Forecast:
    """Counts the work of one of `world_size` processes.

    Its seconds are those on `device`, or, for None, on the device that this process would train on; on a CPU with `threads`
    threads, by default as many as torch takes.

    Raises:
        InvalidConfig: parts that do not fit together.
    """
    work = flop_count.count(config)
    passes = work.forward_flops + work.backward_flops
    here = torch.device("cpu")
    if torch.accelerator.is_available():
        here = torch.accelerator.current_accelerator() or here
    if device is None and here.type != "cpu":
        device = known_device(torch.cuda.get_device_name(here))
        efficiency = EFFICIENCY
    if device is not None:
        rate = efficiency * device.peak(config.optimization.mixed_precision)
        basis = f"{efficiency:.0%} of {device.peak(config.optimization.mixed_precision) / 1e12:.0f} TFLOP/s, assumed"
        seconds = (passes + work.learning_flops) / rate
        held = footprint(config, world_size, "cuda")
        update = update_bytes(config, work.trained_parameters, world_size) / device.bandwidth
        return Forecast(
            work, held, device.name, basis, seconds, work.encode_flops / rate, update, RUNTIME_BYTES["cuda"],
            device.memory,
        )  # fmt: skip
    with _computing_with(threads):
        if passes <= TIMED_FLOPS:
            rate = passes / flop_count.timed_step(config, here, clock)
            basis = "one forward and backward pass of this model, timed"
        else:
            rate = _block_rate(config, here, clock)
            basis = f"{rate / 1e9:.0f} GFLOP/s of one transformer block, timed"
        bandwidth = measured_bandwidth(here, clock)
        with_threads = f", {_counted(torch.get_num_threads())}" if here.type == "cpu" else ""
    seconds = (passes + work.learning_flops) / rate
    kind = "cpu" if here.type == "cpu" else "cuda"
    held = footprint(config, world_size, kind)
    name = f"this machine ({here.type}{with_threads})"
    update = update_bytes(config, work.trained_parameters, world_size) / bandwidth
    return Forecast(work, held, name, basis, seconds, work.encode_flops / rate, update, RUNTIME_BYTES[kind], None)


@contextmanager
def _computing_with(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _counted(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def update_bytes(config: TrainingConfig, trained: int, world_size: int) -> float:
    """PURE: what the optimizer's step of one process reads and writes; with FSDP each has its share."""
    optimization = config.optimization
    numbers = trained / world_size if optimization.parallelism == "FSDP" else trained
    each = UPDATE_BYTES.get(optimization.optimizer.target, UPDATE_BYTES["AdamW"])
    each += CLIPPING_BYTES if optimization.max_grad_norm is not None else 0
    each += AVERAGE_BYTES if optimization.ema is not None else 0
    return numbers * each


def _block_rate(config: TrainingConfig, device: torch.device, clock: Callable[[], float]) -> float:
    """FLOPs a second of a transformer block as the innermost level has them."""
    params = config.model.params
    width = params.unet_config.params.block_out_channels[-1]
    side = config.data.params.resolution // params.first_stage_config.factor // params.unet_config.params.downsampling
    dtype = WEIGHT_TYPES[config.optimization.mixed_precision]
    return measured_flops(device, dtype, width, max(side**2, 1), clock)
