"""The networks of a model: UNet, first stage, text and image encoders; where their weights come from, what is trained.

Shapes by default are those of the `config.json` files of stabilityai/stable-diffusion-xl-base-1.0; names are those of
diffusers' and transformers' class signatures.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Flag, Fraction, ModelName, PathText, PositiveCount, PositiveReal, Text


class Source(ConfigModel):
    """Where the weights of a module come from; without `pretrained` it is built from `params`, seeded by `seed`."""

    pretrained: ModelName | None = None
    """Local folder, hub name or s3://bucket/prefix, in diffusers' or transformers' layout; or a single .safetensors file in the
    layout that SDXL was published in: a path, owner/repository/file on the hub, or s3://bucket/file. Safetensors only."""
    subfolder: PathText | None = None
    """Folder inside the pretrained model."""
    revision: Text | None = None
    """Branch, tag or commit of a hub repository."""
    variant: Text | None = None
    """Variant of the weight files, such as fp16."""


class Trainable(ConfigModel):
    """Whether a module is trained, and how fast."""

    train: Flag = False
    """Whether its weights are trained; else they are frozen."""
    learning_rate: PositiveReal | None = None
    """Overrides optimization.learning_rate for this module."""


DownBlock = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "CrossAttnUpBlock2D"]
Widths = Annotated[tuple[PositiveCount, ...], Field(min_length=1, max_length=16)]
"""Channels of each block, outermost first."""
PerBlock = PositiveCount | Widths


def _groups_divide(widths: tuple[int, ...], groups: int) -> None:
    for channels in widths:
        if channels % groups:
            raise ValueError(f"block_out_channels {channels} is not a multiple of norm_num_groups {groups}; change one")


class UNetParams(ConfigModel):
    """Shape of a UNet2DConditionModel; the defaults are SDXL base's 2.57 B parameters."""

    sample_size: PositiveCount | None = None
    """Height and width of the latents; by default data.params.resolution over the first stage's factor."""
    in_channels: PositiveCount = 4
    """Channels of what goes in."""
    out_channels: PositiveCount = 4
    """Channels of what comes out."""
    down_block_types: Annotated[tuple[DownBlock, ...], Field(max_length=16)] = (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
    )
    """Kinds of the blocks on the way down, as diffusers names them."""
    mid_block_type: Literal["UNetMidBlock2DCrossAttn"] | None = "UNetMidBlock2DCrossAttn"
    """Kind of the block in the middle; null for none."""
    up_block_types: Annotated[tuple[UpBlock, ...], Field(max_length=16)] = (
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "UpBlock2D",
    )
    """Kinds of the blocks on the way up, as diffusers names them."""
    block_out_channels: Widths = (320, 640, 1280)
    """Channels of each block."""
    layers_per_block: PerBlock = 2
    """Residual layers in each block; one number, or one for each."""
    transformer_layers_per_block: PerBlock = (1, 2, 10)
    """Transformer layers in each cross-attention block; one number, or one for each."""
    attention_head_dim: PerBlock = (5, 10, 20)
    """Number of heads per block: diffusers keeps this misnomer, and so do published configurations."""
    cross_attention_dim: PositiveCount = 2048
    """Width of the conditioning tokens."""
    use_linear_projection: Flag = True
    """Whether transformers project with linear layers instead of convolutions."""
    norm_num_groups: PositiveCount = 32
    """Groups of the group norms."""
    dropout: Fraction = 0.0
    """Share of activations or conditions that training drops."""
    addition_embed_type: Literal["text_time"] | None = "text_time"
    """Kind of the additional embedding: text_time is SDXL's."""
    addition_time_embed_dim: PositiveCount = 256
    """Width of the embedding of each micro-condition."""
    projection_class_embeddings_input_dim: PositiveCount = 2816
    """Pooled text width plus 6 x addition_time_embed_dim."""

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        blocks = len(self.block_out_channels)
        for name in (
            "down_block_types",
            "up_block_types",
            "layers_per_block",
            "transformer_layers_per_block",
            "attention_head_dim",
        ):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != blocks:
                raise ValueError(f"{name} has {len(value)} entries for {blocks} block_out_channels; give one a block")
        _groups_divide(self.block_out_channels, self.norm_num_groups)
        if self.addition_embed_type and self.pooled_dim <= 0:
            raise ValueError(
                f"projection_class_embeddings_input_dim {self.projection_class_embeddings_input_dim} must exceed "
                f"6 x addition_time_embed_dim = {6 * self.addition_time_embed_dim}: the rest is the pooled text width"
            )
        return self

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled text embedding of SDXL's micro-conditioning."""
        return self.projection_class_embeddings_input_dim - 6 * self.addition_time_embed_dim

    @property
    def downsampling(self) -> int:
        """Factor between the latents' and the innermost block's height."""
        return int(2 ** (len(self.block_out_channels) - 1))


class LoraConfig(Trainable):
    """Low-rank weights beside the UNet's own, which stay as they are (LoRA, arXiv 2106.09685); saved as diffusers loads them."""

    train: Flag = True
    """Whether its weights are trained; else they are frozen."""
    rank: Annotated[PositiveCount, Field(le=1024)] = 16
    """Rank of the product that is added to a layer's weights."""
    alpha: PositiveReal | None = None
    """The product is multiplied by alpha / rank; by default 1."""
    target_modules: Annotated[tuple[PathText, ...], Field(min_length=1, max_length=256)] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    )
    """Names, or ends of names, of the layers that get them; by default those of all attention."""
    dropout: Annotated[Fraction, Field(lt=1)] = 0.0
    """Share of their inputs that training drops."""
    pretrained: ModelName | None = None
    """A LoRA file to start from, in the names of diffusers or of kohya's scripts, with the same rank and layers: a local
    .safetensors file, owner/repository/file on the hub, or s3://bucket/file. By default training starts from new weights, which
    change nothing yet."""


class UNetConfig(Source, Trainable):
    """The diffusion UNet."""

    target: Literal["UNet2DConditionModel"] = "UNet2DConditionModel"
    """Kind, by its name in the registry."""
    params: UNetParams = UNetParams()
    gradient_checkpointing: Flag = False
    """Recompute activations in the backward pass: less memory, about a fifth slower."""
    lora: LoraConfig | None = None
    compile: Flag = False
    """Compile each transformer block with torch.compile: the first step takes minutes, later ones are faster."""


class FirstStageParams(ConfigModel):
    """Shape of an autoencoder; the defaults are SDXL's."""

    in_channels: PositiveCount = 3
    """Channels of what goes in."""
    out_channels: PositiveCount = 3
    """Channels of what comes out."""
    latent_channels: PositiveCount = 4
    """Channels of the latents."""
    block_out_channels: Widths = (128, 256, 512, 512)
    """Channels of each block."""
    layers_per_block: PositiveCount = 2
    """Residual layers in each block; one number, or one for each."""
    norm_num_groups: PositiveCount = 32
    """Groups of the group norms."""
    scaling_factor: PositiveReal = 0.13025
    """Latents are multiplied by it."""
    force_upcast: Flag = True
    """Run in float32 under mixed precision: SDXL's own activations overflow float16."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        _groups_divide(self.block_out_channels, self.norm_num_groups)
        return self


class FirstStageConfig(Source):
    """What turns images into latents and back; always frozen. `Pixels` trains on the images themselves."""

    target: Literal["AutoencoderKL", "Pixels"] = "AutoencoderKL"
    """Kind, by its name in the registry."""
    params: FirstStageParams = FirstStageParams()
    patch_size: Annotated[PositiveCount, Field(le=64)] = 1
    """Of `Pixels` alone: squares of so many pixels a side become one position, their colours its channels, so that a UNet
    has fewer and wider positions to compute; 4 makes 48 channels of RGB. Loses nothing."""

    @property
    def factor(self) -> int:
        """Pixels per latent along each side, when built from `params`."""
        return self.patch_size if self.target == "Pixels" else int(2 ** (len(self.params.block_out_channels) - 1))


class TransformerParams(ConfigModel):
    """Shape of a CLIP text or vision encoder that is built rather than loaded."""

    hidden_size: PositiveCount = 32
    """Width of the encoder."""
    intermediate_size: PositiveCount = 64
    """Width of its feed-forward layers."""
    num_hidden_layers: Annotated[PositiveCount, Field(ge=2)] = 2
    """Number of its layers."""
    num_attention_heads: PositiveCount = 2
    """Attention heads in each layer."""
    projection_dim: PositiveCount = 32
    """Width of the pooled embedding."""
    vocab_size: PositiveCount = 49_408
    """Tokens that it knows."""
    max_position_embeddings: PositiveCount = 77
    """Longest sequence that it takes."""
    image_size: PositiveCount = 224
    """Height and width of its images, in pixels."""
    patch_size: PositiveCount = 14
    """Height and width of a patch, in pixels."""


class TextEncoderConfig(Source, Trainable):
    """One text encoder; its penultimate states are joined with the others' on the feature axis."""

    target: Literal["CLIPTextModel", "CLIPTextModelWithProjection"] = "CLIPTextModel"
    """Kind, by its name in the registry."""
    params: TransformerParams = TransformerParams()
    tokenizer: ModelName | None = None
    """Local folder, hub name or s3://bucket/prefix of the tokenizer; by default `pretrained`."""
    tokenizer_subfolder: PathText | None = None
    """Folder of the tokenizer inside its model."""


class ImageEncoderConfig(Source, Trainable):
    """What turns reference images into features for adapters."""

    target: Literal["CLIPVisionModelWithProjection"] = "CLIPVisionModelWithProjection"
    """Kind, by its name in the registry."""
    params: TransformerParams = TransformerParams()
