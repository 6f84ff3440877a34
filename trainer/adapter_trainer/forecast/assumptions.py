"""PURE: what a configuration leaves to models and data that are not read yet, and what is taken for granted of them."""

from dataclasses import dataclass
from typing import Any

from adapter_api.columns import columns_of
from adapter_api.conditions import TextConfig
from adapter_api.model import ModelParams
from adapter_api.networks import ImageEncoderConfig, Source, TextEncoderConfig, TransformerParams
from adapter_api.sources import with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.model.sources import without_beginnings

UNKNOWN_WIDTH = 1280
"""Of a column whose width only the data tell."""
VIT_H = TransformerParams(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, projection_dim=1024
)
"""The image encoder that published SDXL adapters use (its `config.json` in laion/CLIP-ViT-H-14-laion2B-s32B-b79K)."""
VISION_BIG_G = TransformerParams(
    hidden_size=1664, intermediate_size=8192, num_hidden_layers=48, num_attention_heads=16, projection_dim=1280
)
"""The image encoder of the base SDXL adapter (`sdxl_models/image_encoder/config.json` in h94/IP-Adapter)."""
VISION_L = TransformerParams(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, projection_dim=768
)
"""OpenAI's (`vision_config` in the `config.json` of openai/clip-vit-large-patch14)."""
IMAGE_ENCODERS = (
    ("sdxl_models", "a CLIP ViT-bigG/14", VISION_BIG_G),
    ("bigg", "a CLIP ViT-bigG/14", VISION_BIG_G),
    ("vit-large", "a CLIP ViT-L/14", VISION_L),
    ("vit-l-14", "a CLIP ViT-L/14", VISION_L),
    ("", "a CLIP ViT-H/14", VIT_H),
)
"""Part of a published encoder's name or subfolder -> what it is."""
VIT_L = TransformerParams(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
)
VIT_BIG_G = TransformerParams(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
)
"""SDXL's text encoders (the `config.json` files of text_encoder and text_encoder_2 in its base model)."""
SDXL_TEXT = {"CLIPTextModel": VIT_L, "CLIPTextModelWithProjection": VIT_BIG_G}


@dataclass(frozen=True)
class Known:
    """A configuration with nothing to load."""

    config: TrainingConfig
    """Shapes instead of names, columns with widths, no text encoders."""
    text_encoders: tuple[TextEncoderConfig, ...]
    """Those, with shapes instead of names."""
    assumed: tuple[str, ...]
    """What could not be known and was taken for granted, for people."""

    @property
    def text_tokens(self) -> int:
        """Tokens of a caption; 0 without text."""
        return min((encoder.params.max_position_embeddings for encoder in self.text_encoders), default=0)


def known(config: TrainingConfig) -> Known:
    """What can be built of a configuration without its models and its data."""
    config = without_beginnings(config)
    params: ModelParams = with_pipeline_sources(config.model.params)
    assumed = []

    def unnamed(part: Any, field: str) -> Any:
        if not isinstance(part, Source) or part.pretrained is None:
            return part
        assumed.append(f"{field}: {part.pretrained} has the shape that `params` give, by default SDXL's")
        return part.model_copy(update={"pretrained": None})

    def text(encoder: TextEncoderConfig, index: int) -> TextEncoderConfig:
        if encoder.pretrained is None:
            return encoder
        assumed.append(f"model.params.text_config.encoders[{index}]: {encoder.pretrained} has the shape of SDXL's")
        return encoder.model_copy(update={"pretrained": None, "params": SDXL_TEXT[encoder.target]})

    encoder: ImageEncoderConfig | None = params.image_encoder_config
    if encoder is not None and encoder.pretrained is not None:
        name = f"{encoder.pretrained}/{encoder.subfolder or ''}".rstrip("/")
        said, shape = next((said, shape) for part, said, shape in IMAGE_ENCODERS if part in name.lower())
        assumed.append(f"model.params.image_encoder_config: {name} is {said}")
        encoder = encoder.model_copy(update={"pretrained": None, "params": shape})
    columns = []
    for column in columns_of(config):
        if column.width is None and column.kind != "reference":
            assumed.append(f"data.params.columns: {column.name!r} is {UNKNOWN_WIDTH} wide")
            columns.append(column.model_copy(update={"width": UNKNOWN_WIDTH}))
        else:
            columns.append(column)
    shaped = params.model_copy(
        update={
            "pretrained_model_name_or_path": None,
            "unet_config": unnamed(params.unet_config, "model.params.unet_config"),
            "first_stage_config": unnamed(params.first_stage_config, "model.params.first_stage_config"),
            "image_encoder_config": encoder,
            "text_config": TextConfig(),
        }
    )
    data = config.data.params.model_copy(update={"columns": tuple(columns)})
    return Known(
        config.model_copy(
            update={
                "model": config.model.model_copy(update={"params": shaped}),
                "data": config.data.model_copy(update={"params": data}),
            }
        ),
        tuple(text(each, index) for index, each in enumerate(params.text_config.encoders)),
        tuple(assumed),
    )
