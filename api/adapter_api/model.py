"""The model: its networks, its conditions and its noise; the defaults are SDXL base 1.0."""

from typing import Annotated, Literal

from pydantic import Field

from adapter_api.base import ConfigModel, Count, Flag, ModelName, Name, PositiveCount, PositiveReal, Text
from adapter_api.conditions import AdapterConfig, Conditioned, TextConfig, TokenConditionersConfig
from adapter_api.networks import FirstStageConfig, ImageEncoderConfig, UNetConfig


class SchedulerParams(ConfigModel):
    """The noise schedule; the defaults are SDXL's."""

    num_train_timesteps: Annotated[PositiveCount, Field(ge=2, le=100_000)] = 1000
    """Steps of the diffusion process."""
    beta_start: PositiveReal = 0.00085
    """First beta."""
    beta_end: PositiveReal = 0.012
    """Last beta."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    """How betas go from the first to the last."""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """What the model predicts."""
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    """How sampling spreads its steps."""
    rescale_betas_zero_snr: Flag = False
    """Whether the last step is pure noise (https://arxiv.org/abs/2305.08891)."""
    steps_offset: Count = 1
    """Added to the steps of sampling."""


class SchedulerConfig(ConfigModel):
    """The noise that training adds."""

    target: Literal["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"] = "DDPMScheduler"
    """Kind, by its name in the registry."""
    params: SchedulerParams = SchedulerParams()


class ModelParams(ConfigModel):
    """The parts of the model."""

    pretrained_model_name_or_path: ModelName | None = None
    """A whole SDXL pipeline, as a local folder, a hub name or s3://bucket/prefix, for every part that names no source of its
    own. What is in object storage is fetched before training starts, with the access that spec.models describes."""
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
    def conditioned(self) -> dict[str, Conditioned]:
        """Every module that a data column feeds, by its path below model.params."""
        tokens = self.params.token_conditioners
        named = {"token_conditioners.label_to_token": tokens.label_to_token}
        named["token_conditioners.embed_to_token"] = tokens.embed_to_token
        adapters = {f"adapters_config.{name}": adapter for name, adapter in self.params.adapters_config.items()}
        return {**{path: module for path, module in named.items() if module is not None}, **adapters}
