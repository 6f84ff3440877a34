"""Optimization: batches, learning rates, the optimizer, averages, precision."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Count, Flag, Fraction, NonNegativeReal, PositiveCount, PositiveReal

Decay = Annotated[Fraction, Field(lt=1)]


class OptimizerParams(ConfigModel):
    """Settings of the optimizer; each says which optimizers have it."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the averages; not of Adafactor."""
    weight_decay: NonNegativeReal = 0.01
    """Decoupled weight decay."""
    eps: PositiveReal = 1e-8
    """Added to denominators; not of Adafactor."""
    d_coef: PositiveReal = 1.0
    """Multiplies the rate that Prodigy finds; of Prodigy alone."""
    safeguard_warmup: Flag = False
    """Keep the warmup out of the rate that Prodigy finds: for lr_warmup_steps above 0; of Prodigy alone."""
    clip_threshold: PositiveReal = 1.0
    """Largest root mean square of an update; of Adafactor alone."""


class OptimizerConfig(ConfigModel):
    """The optimizer.

    AdamW: fused (arXiv 1711.05101). AdamW8bit: its averages in 8 bits, a quarter of the memory; by bitsandbytes, needs a
    GPU (arXiv 2110.02861). Prodigy: finds the learning rate, so that optimization.learning_rate is 1 (arXiv 2306.06101).
    Adafactor: keeps rows and columns of its averages alone (arXiv 1804.04235).
    """

    target: Literal["AdamW", "AdamW8bit", "Prodigy", "Adafactor"] = "AdamW"
    """Kind, by its name in the registry."""
    params: OptimizerParams = OptimizerParams()


class EmaConfig(ConfigModel):
    """An exponential moving average of the trained weights; sampling uses it when it is there."""

    decay: Annotated[Decay, Field(gt=0)] = 0.9999
    """Share of the average that a step keeps."""
    warmup: Flag = True
    """Let the decay grow as (1 + step) / (10 + step), so that early weights are forgotten."""


class OptimizationConfig(ConfigModel):
    """How the weights move."""

    train_batch_size: Annotated[PositiveCount, Field(le=65_536)] = 1
    """Samples per process and forward pass."""
    gradient_accumulation_steps: Annotated[PositiveCount, Field(le=65_536)] = 1
    """Forward passes to an optimizer step."""
    num_train_epochs: PositiveCount = 1
    """Times that every sample is read, whatever the number of processes and the batch size are or become; max_train_steps
    overrides it."""
    max_train_steps: PositiveCount | None = None
    """Optimizer steps; overrides num_train_epochs."""
    learning_rate: PositiveReal = 1e-4
    """Learning rate of what has none of its own."""
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "constant"
    """Learning-rate schedule, as diffusers names it."""
    lr_warmup_steps: Count = 0
    """Steps until the full learning rate."""
    lr_num_cycles: Annotated[PositiveCount, Field(le=100_000)] = 1
    """Times that cosine_with_restarts goes down from the full rate; 1 does not restart. Of it alone."""
    lr_power: Annotated[PositiveReal, Field(le=100)] = 1.0
    """Power of polynomial; 1 is a line. Of it alone."""
    lr_end: NonNegativeReal = 1e-7
    """Rate that polynomial ends at. Of it alone."""
    optimizer: OptimizerConfig = OptimizerConfig()
    max_grad_norm: PositiveReal | None = 1.0
    """Gradients are clipped to this norm; null for not at all."""
    parallelism: Literal["DDP", "FSDP"] = "DDP"
    """DDP: all weights on every process. FSDP: of what is trained, each process holds its share of weights, gradients and
    optimizer state (FSDP2), for UNets that do not fit otherwise."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Data type of the forward pass."""
    min_snr_gamma: PositiveReal | None = None
    """Weigh each sample's loss by its signal-to-noise ratio, at most this; 5 is usual (arXiv 2303.09556)."""
    offset_noise: Annotated[NonNegativeReal, Field(le=1)] = 0.0
    """Standard deviation of what is added to the noise of a whole channel, so that brightness is learned; 0.05 is usual."""
    ema: EmaConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _unquoted_no(cls, data: Any) -> Any:
        """YAML 1.1 readers, kubectl's among them, turn an unquoted `no` into false."""
        if isinstance(data, dict) and data.get("mixed_precision") is False:
            return {**data, "mixed_precision": "no"}
        return data
