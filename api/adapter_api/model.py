"""The model: its networks, its conditions and its noise; the defaults are SDXL base 1.0."""

from typing import Annotated, Literal

from pydantic import Field

from adapter_api.base import ConfigModel, Count, Flag, Fraction, ModelName, Name, PositiveCount, PositiveReal, Text
from adapter_api.conditions import (
    AdapterConfig,
    Conditioned,
    ModulePath,
    TextConfig,
    TokenConditionersConfig,
    adapter_path,
    conditioner_path,
)
from adapter_api.networks import FirstStageConfig, ImageEncoderConfig, UNetConfig

Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]


class DiffusionSchedule(ConfigModel):
    """A noise schedule with every number known; the defaults are SDXL's."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Betas = "scaled_linear"
    prediction_type: Prediction = "epsilon"
    timestep_spacing: Spacing = "leading"
    rescale_betas_zero_snr: bool = False
    steps_offset: int = 1


class SchedulerParams(ConfigModel):
    """The noise schedule of the diffusion process.

    A value that is not set is read from the scheduler of the pipeline that the UNet belongs to; without one, SDXL's value is used.
    """

    num_train_timesteps: Annotated[PositiveCount, Field(ge=2, le=100_000)] | None = None
    """Number of noise levels; SDXL has 1000."""
    beta_start: PositiveReal | None = None
    """First beta of the schedule; SDXL uses 0.00085."""
    beta_end: PositiveReal | None = None
    """Last beta of the schedule; SDXL uses 0.012."""
    beta_schedule: Betas | None = None
    """Curve between the first and the last beta; SDXL uses scaled_linear."""
    prediction_type: Prediction | None = None
    """What the UNet predicts; SDXL predicts epsilon, the noise."""
    timestep_spacing: Spacing | None = None
    """How sampling spreads its steps over the noise levels; SDXL uses leading."""
    rescale_betas_zero_snr: Flag | None = None
    """Whether betas are rescaled so that the last noise level is pure noise (arXiv 2305.08891); SDXL does not do
    this."""
    steps_offset: Count | None = None
    """Offset added to the noise levels of sampling; SDXL uses 1."""

    @property
    def filled(self) -> DiffusionSchedule:
        """With SDXL's numbers where nothing is set."""
        return DiffusionSchedule.model_validate(self.model_dump(exclude_none=True))


class SchedulerConfig(ConfigModel):
    """The scheduler that adds noise in training."""

    target: Literal["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"] = "DDPMScheduler"
    """Kind of noise scheduler."""
    params: SchedulerParams = SchedulerParams()


class ModelParams(ConfigModel):
    """The parts of the model."""

    pretrained_model_name_or_path: ModelName | None = None
    """SDXL pipeline that supplies all parts without a source of their own: a local folder, a hub name,
    s3://bucket/prefix, or a single .safetensors file in the original SDXL layout (a path, owner/repository/file on the
    hub, or s3://bucket/file). Models in object storage are fetched before training starts, with the access in
    spec.models."""
    revision: Text | None = None
    """Branch, tag or commit of the pipeline's hub repository; a part can set its own."""
    variant: Text | None = None
    """Variant of the pipeline's weight files, such as fp16; a part can set its own."""
    unet_config: UNetConfig = UNetConfig()
    first_stage_config: FirstStageConfig = FirstStageConfig()
    text_config: TextConfig = TextConfig()
    image_encoder_config: ImageEncoderConfig | None = None
    adapters_config: Annotated[dict[Name, AdapterConfig], Field(max_length=16)] = {}
    """IP-Adapters, each under a name of your choice."""
    token_conditioners: TokenConditionersConfig = TokenConditionersConfig()
    joint_dropout: Fraction | None = None
    """Share of the samples that lose every condition at once. Where it is set, one draw decides for each sample, and the `dropout`
    of a condition is the share of the samples that lose that condition alone; IP-Adapter's published recipe sets all three of
    joint_dropout, text_config.dropout and the adapter's dropout to 0.05. By default each condition is dropped independently."""
    scheduler_config: SchedulerConfig = SchedulerConfig()


class ModelConfig(ConfigModel):
    """The model that is trained."""

    target: Literal["SDXL"] = "SDXL"
    """Kind of model."""
    params: ModelParams = ModelParams()

    @property
    def conditioned(self) -> dict[ModulePath, Conditioned]:
        """Every module that a data column feeds."""
        tokens = {conditioner_path(name): module for name, module in self.params.token_conditioners.present.items()}
        return {**tokens, **{adapter_path(name): module for name, module in self.params.adapters_config.items()}}
