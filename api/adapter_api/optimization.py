"""Optimization: batches, learning rates, the optimizer, averages, precision."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Count, Flag, Fraction, NonNegativeReal, PositiveCount, PositiveReal

Decay = Annotated[Fraction, Field(lt=1)]


class OptimizerParams(ConfigModel):
    """Settings of the optimizer. A setting that the chosen optimizer does not have is refused."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the two moving averages. Not for Adafactor."""
    weight_decay: NonNegativeReal = 0.01
    """Decoupled weight decay."""
    eps: PositiveReal = 1e-8
    """Number added to denominators for stability. Not for Adafactor."""
    d_coef: PositiveReal = 1.0
    """Factor on the learning rate that Prodigy finds; lower it if training is unstable. Only for Prodigy."""
    safeguard_warmup: Flag = False
    """Whether Prodigy ignores the warmup when it estimates the learning rate; set it if lr_warmup_steps is above 0.
    Only for Prodigy."""
    clip_threshold: PositiveReal = 1.0
    """Maximum root mean square of an update. Only for Adafactor."""


class OptimizerConfig(ConfigModel):
    """The optimizer.

    AdamW: the fused implementation (arXiv 1711.05101). AdamW8bit: moving averages in 8 bits, a quarter of the memory; needs
    bitsandbytes and a GPU (arXiv 2110.02861). Prodigy: finds the learning rate; set optimization.learning_rate to 1
    (arXiv 2306.06101). Adafactor: stores only row and column averages (arXiv 1804.04235).
    """

    target: Literal["AdamW", "AdamW8bit", "Prodigy", "Adafactor"] = "AdamW"
    """Kind of optimizer."""
    params: OptimizerParams = OptimizerParams()


class EmaConfig(ConfigModel):
    """An exponential moving average of the trained weights. Sampling uses the average if it exists."""

    decay: Annotated[Decay, Field(gt=0)] = 0.9999
    """Decay of the average per step, from 0 to 1; higher values average over more steps."""
    warmup: Flag = True
    """Whether the decay starts low and grows as (1 + step) / (10 + step), so that early weights are soon forgotten."""


class OptimizationConfig(ConfigModel):
    """How the weights are optimized."""

    train_batch_size: Annotated[PositiveCount, Field(le=65_536)] = 1
    """Samples per process in one forward pass."""
    gradient_accumulation_steps: Annotated[PositiveCount, Field(le=65_536)] = 1
    """Forward passes per optimizer step."""
    num_train_epochs: PositiveCount = 1
    """Number of times that every sample is read, whatever the batch size and number of processes. Ignored if
    max_train_steps is set."""
    max_train_steps: PositiveCount | None = None
    """Number of optimizer steps; overrides num_train_epochs."""
    learning_rate: PositiveReal = 1e-4
    """Learning rate of all modules that do not set their own."""
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "constant"
    """Learning-rate schedule, by diffusers' name."""
    lr_warmup_steps: Count = 0
    """Optimizer steps until the full learning rate is reached; constant ignores them."""
    lr_num_cycles: Annotated[PositiveCount, Field(le=100_000)] = 1
    """Number of decays from the full rate; 1 means no restart. Only for cosine_with_restarts."""
    lr_power: Annotated[PositiveReal, Field(le=100)] = 1.0
    """Exponent of the decay; 1 is linear. Only for polynomial."""
    lr_end: NonNegativeReal = 1e-7
    """Final learning rate. Only for polynomial."""
    optimizer: OptimizerConfig = OptimizerConfig()
    max_grad_norm: PositiveReal | None = 1.0
    """Norm to which gradients are clipped; null disables clipping."""
    parallelism: Literal["DDP", "FSDP"] = "DDP"
    """DDP: each process holds all weights. FSDP: each process holds a shard of the trained weights, their gradients and
    optimizer state (FSDP2); choose it for a UNet that does not fit into one GPU."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Data type of the forward pass; no means float32."""
    min_snr_gamma: PositiveReal | None = None
    """Upper bound of the signal-to-noise ratio by which each sample's loss is weighted; 5 is usual (arXiv 2303.09556).
    By default losses are not weighted."""
    offset_noise: Annotated[NonNegativeReal, Field(le=1)] = 0.0
    """Standard deviation of the noise that is added to whole channels, which helps to learn very bright and dark
    images; 0.05 is usual, 0 disables it."""
    ema: EmaConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _unquoted_no(cls, data: Any) -> Any:
        """YAML 1.1 readers, kubectl's among them, turn an unquoted `no` into false."""
        if isinstance(data, dict) and data.get("mixed_precision") is False:
            return {**data, "mixed_precision": "no"}
        return data
