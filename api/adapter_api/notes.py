"""PURE: what a valid configuration means that its owner may not expect of it."""

from adapter_api.networks import UNetParams
from adapter_api.training import TrainingConfig

_SHAPE = (
    "block_out_channels",
    "layers_per_block",
    "transformer_layers_per_block",
    "cross_attention_dim",
    "down_block_types",
    "up_block_types",
)


def notes_on(config: TrainingConfig) -> list[str]:
    """A line for each, by field; empty for most configurations."""
    params = config.model.params
    unet, sdxl = params.unet_config, UNetParams()
    is_sdxls = all(getattr(unet.params, name) == getattr(sdxl, name) for name in _SHAPE)
    if params.pretrained_model_name_or_path is not None or unet.pretrained is not None or not is_sdxls:
        return []
    return [
        (
            "model.params.unet_config: names nothing to load, so that all 2.57 billion weights of a UNet of SDXL's shape begin at "
            "random; name model.params.pretrained_model_name_or_path or unet_config.pretrained, unless that is what you want"
        )
    ]
