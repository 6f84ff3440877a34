"""The model: its networks, its conditions and its noise; the defaults are SDXL base 1.0."""

from typing import Annotated, Literal

from pydantic import Field

from adapter_api.base import ConfigModel, Count, Flag, ModelName, Name, PositiveCount, PositiveReal, Text
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
    """The noise schedule.

    What is not set is read from the scheduler of the pipeline that the UNet comes from, if there is one, and else is SDXL's.
    """

    num_train_timesteps: Annotated[PositiveCount, Field(ge=2, le=100_000)] | None = None
    """Steps of the diffusion process; SDXL's are 1000."""
    beta_start: PositiveReal | None = None
    """First beta; SDXL's is 0.00085."""
    beta_end: PositiveReal | None = None
    """Last beta; SDXL's is 0.012."""
    beta_schedule: Betas | None = None
    """How betas go from the first to the last; SDXL's is scaled_linear."""
    prediction_type: Prediction | None = None
    """What the model predicts; SDXL's is epsilon."""
    timestep_spacing: Spacing | None = None
    """How sampling spreads its steps; SDXL's is leading."""
    rescale_betas_zero_snr: Flag | None = None
    """Whether the last step is pure noise (https://arxiv.org/abs/2305.08891); SDXL's is not."""
    steps_offset: Count | None = None
    """Added to the steps of sampling; SDXL's is 1."""

    @property
    def filled(self) -> DiffusionSchedule:
        """With SDXL's numbers where nothing is set."""
        return DiffusionSchedule.model_validate(self.model_dump(exclude_none=True))


class SchedulerConfig(ConfigModel):
    """The noise that training adds."""

    target: Literal["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"] = "DDPMScheduler"
    """Kind, by its name in the registry."""
    params: SchedulerParams = SchedulerParams()


class ModelParams(ConfigModel):
    """The parts of the model."""

    pretrained_model_name_or_path: ModelName | None = None
    """A whole SDXL pipeline, as a local folder, a hub name or s3://bucket/prefix, or as a single .safetensors file in the layout
    that SDXL was published in (a path, owner/repository/file on the hub, s3://bucket/file), for every part that names no
    source of its own. What is in object storage is fetched before training starts, with the access that spec.models describes."""
    revision: Text | None = None
    """Branch, tag or commit of the pipeline's hub repository; a part may name its own."""
    variant: Text | None = None
    """Variant of the pipeline's weight files, such as fp16; a part may name its own."""
    unet_config: UNetConfig = UNetConfig()
    first_stage_config: FirstStageConfig = FirstStageConfig()
    text_config: TextConfig = TextConfig()
    image_encoder_config: ImageEncoderConfig | None = None
    adapters_config: Annotated[dict[Name, AdapterConfig], Field(max_length=16)] = {}
    """IP-Adapters, by name."""
    token_conditioners: TokenConditionersConfig = TokenConditionersConfig()
    scheduler_config: SchedulerConfig = SchedulerConfig()


class ModelConfig(ConfigModel):
    """The model."""

    target: Literal["SDXL"] = "SDXL"
    """Kind, by its name in the registry."""
    params: ModelParams = ModelParams()

    @property
    def conditioned(self) -> dict[ModulePath, Conditioned]:
        """Every module that a data column feeds."""
        tokens = {conditioner_path(name): module for name, module in self.params.token_conditioners.present.items()}
        return {**tokens, **{adapter_path(name): module for name, module in self.params.adapters_config.items()}}
