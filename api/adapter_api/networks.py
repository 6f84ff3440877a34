"""The networks of a model: UNet, first stage, text and image encoders; where their weights come from, what is trained.

Shapes by default are those of the `config.json` files of stabilityai/stable-diffusion-xl-base-1.0; names are those of
diffusers' and transformers' class signatures.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Flag, Fraction, ModelName, PathText, PositiveCount, PositiveReal, Text


class Source(ConfigModel):
    """Where the weights of a module come from.

    Without `pretrained` the module is built from `params` and initialised from `seed`.
    """

    pretrained: ModelName | None = None
    """Pretrained weights: a local folder, hub name or s3://bucket/prefix in the layout of diffusers or transformers, or
    a single .safetensors file in the original SDXL layout (a path, owner/repository/file on the hub, or
    s3://bucket/file). Only safetensors files are read."""
    subfolder: PathText | None = None
    """Folder of this part inside the pretrained model."""
    revision: Text | None = None
    """Branch, tag or commit of the hub repository; ignored for local folders and s3:// addresses."""
    variant: Text | None = None
    """Variant of the weight files, such as fp16."""


class Trainable(ConfigModel):
    """Whether a module is trained, and at which learning rate."""

    train: Flag = False
    """Whether the module is trained; false freezes its weights."""
    learning_rate: PositiveReal | None = None
    """Learning rate of this module, instead of optimization.learning_rate."""


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
    """Shape of a UNet2DConditionModel; the defaults give the 2.57 B parameters of SDXL base.

    Used for a UNet that is built, and for one from a single .safetensors file; a pretrained UNet in diffusers' layout
    brings its own shape.
    """

    sample_size: PositiveCount | None = None
    """Height and width of the latents; by default data.params.resolution divided by the first stage's downsampling
    factor."""
    in_channels: PositiveCount = 4
    """Channels of the input."""
    out_channels: PositiveCount = 4
    """Channels of the output."""
    down_block_types: Annotated[tuple[DownBlock, ...], Field(max_length=16)] = (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
    )
    """Kinds of the downsampling blocks, by diffusers' names."""
    mid_block_type: Literal["UNetMidBlock2DCrossAttn"] | None = "UNetMidBlock2DCrossAttn"
    """Kind of the middle block; null omits it."""
    up_block_types: Annotated[tuple[UpBlock, ...], Field(max_length=16)] = (
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "UpBlock2D",
    )
    """Kinds of the upsampling blocks, by diffusers' names."""
    block_out_channels: Widths = (320, 640, 1280)
    """Output channels of each block."""
    layers_per_block: PerBlock = 2
    """Residual layers per block: one number for all, or one per block."""
    transformer_layers_per_block: PerBlock = (1, 2, 10)
    """Transformer layers per cross-attention block: one number for all, or one per block."""
    attention_head_dim: PerBlock = (5, 10, 20)
    """Number of attention heads per block. The name is a misnomer that diffusers and published configurations keep."""
    cross_attention_dim: PositiveCount = 2048
    """Width of the conditioning tokens."""
    use_linear_projection: Flag = True
    """Whether transformer blocks project with linear layers instead of convolutions."""
    norm_num_groups: PositiveCount = 32
    """Groups of each group normalisation."""
    dropout: Fraction = 0.0
    """Share of activations that dropout layers set to zero in training, from 0 to 1."""
    addition_embed_type: Literal["text_time"] | None = "text_time"
    """Kind of the additional embedding; SDXL uses text_time."""
    addition_time_embed_dim: PositiveCount = 256
    """Width of the embedding of each size and crop value."""
    projection_class_embeddings_input_dim: PositiveCount = 2816
    """Input width of the additional embedding: pooled text width plus 6 x addition_time_embed_dim."""

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
    """Low-rank weights added to a frozen UNet (LoRA, arXiv 2106.09685); saved in a format that diffusers loads."""

    train: Flag = True
    """Whether the low-rank weights are trained; false freezes them."""
    rank: Annotated[PositiveCount, Field(le=1024)] = 16
    """Rank of the product that is added to a layer's weights."""
    alpha: PositiveReal | None = None
    """Scale of the product: it is multiplied by alpha / rank. By default alpha equals rank."""
    target_modules: Annotated[tuple[PathText, ...], Field(min_length=1, max_length=256)] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    )
    """Names, or endings of names, of the layers that receive low-rank weights; by default all attention projections."""
    dropout: Annotated[Fraction, Field(lt=1)] = 0.0
    """Share of the layers' inputs that is set to zero in training, from 0 to 1."""
    pretrained: ModelName | None = None
    """A LoRA file to start from, in the names of diffusers or of kohya's scripts, with the same rank and layers: a local
    .safetensors file, owner/repository/file on the hub, or s3://bucket/file. By default training starts from new weights, which
    change nothing yet."""


class UNetConfig(Source, Trainable):
    """The diffusion UNet."""

    target: Literal["UNet2DConditionModel"] = "UNet2DConditionModel"
    """Kind of UNet."""
    params: UNetParams = UNetParams()
    gradient_checkpointing: Flag = False
    """Whether activations are recomputed in the backward pass: needs less memory, takes about a fifth longer."""
    lora: LoraConfig | None = None
    compile: Flag = False
    """Whether transformer blocks are compiled with torch.compile: the first step takes minutes, later steps are
    faster."""


class FirstStageParams(ConfigModel):
    """Shape of an autoencoder; the defaults are SDXL's.

    Used for an autoencoder that is built, and for one from a single .safetensors file. A pretrained one in diffusers'
    layout brings its own shape; a setting here that contradicts it is refused.
    """

    in_channels: PositiveCount = 3
    """Channels of the images."""
    out_channels: PositiveCount = 3
    """Channels of the decoded images."""
    latent_channels: PositiveCount = 4
    """Channels of the latents."""
    block_out_channels: Widths = (128, 256, 512, 512)
    """Output channels of each block."""
    layers_per_block: PositiveCount = 2
    """Residual layers per block."""
    norm_num_groups: PositiveCount = 32
    """Groups of each group normalisation."""
    scaling_factor: PositiveReal = 0.13025
    """Factor by which latents are multiplied."""
    force_upcast: Flag = True
    """Whether the autoencoder runs in float32 under mixed precision; SDXL's activations overflow float16."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        _groups_divide(self.block_out_channels, self.norm_num_groups)
        return self


class FirstStageConfig(Source):
    """The first stage, which turns images into latents and back.

    It is always frozen. `Pixels` trains on the images themselves.
    """

    target: Literal["AutoencoderKL", "Pixels"] = "AutoencoderKL"
    """Kind of first stage."""
    params: FirstStageParams = FirstStageParams()
    patch_size: Annotated[PositiveCount, Field(le=64)] = 1
    """Side, in pixels, of the squares that Pixels turns into one position each, their colours into its channels; 4
    makes 48 channels of RGB. Larger patches make the UNet faster and lose no information. Only for Pixels."""

    @property
    def factor(self) -> int:
        """Pixels per latent along each side, when built from `params`."""
        return self.patch_size if self.target == "Pixels" else int(2 ** (len(self.params.block_out_channels) - 1))


class TransformerParams(ConfigModel):
    """Shape of a CLIP text or vision encoder that is built. A pretrained encoder brings its own shape."""

    hidden_size: PositiveCount = 32
    """Width of the encoder."""
    intermediate_size: PositiveCount = 64
    """Width of the feed-forward layers."""
    num_hidden_layers: Annotated[PositiveCount, Field(ge=2)] = 2
    """Number of transformer layers."""
    num_attention_heads: PositiveCount = 2
    """Attention heads in each layer."""
    projection_dim: PositiveCount = 32
    """Width of the pooled embedding."""
    vocab_size: PositiveCount = 49_408
    """Number of tokens in the vocabulary."""
    max_position_embeddings: PositiveCount = 77
    """Maximum number of tokens in a text."""
    image_size: PositiveCount = 224
    """Height and width of the images, in pixels."""
    patch_size: PositiveCount = 14
    """Height and width of a patch, in pixels."""


class TextEncoderConfig(Source, Trainable):
    """One text encoder. The penultimate states of all encoders are concatenated on the feature axis."""

    target: Literal["CLIPTextModel", "CLIPTextModelWithProjection"] = "CLIPTextModel"
    """Kind of text encoder."""
    params: TransformerParams = TransformerParams()
    tokenizer: ModelName | None = None
    """Local folder, hub name or s3://bucket/prefix of the tokenizer; by default `pretrained`."""
    tokenizer_subfolder: PathText | None = None
    """Folder of the tokenizer inside its model."""


class ImageEncoderConfig(Source, Trainable):
    """The encoder that turns reference images into features for adapters."""

    target: Literal["CLIPVisionModelWithProjection"] = "CLIPVisionModelWithProjection"
    """Kind of image encoder."""
    params: TransformerParams = TransformerParams()
