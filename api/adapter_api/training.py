"""TrainingConfig: what configs/*.yaml hold and what a job's spec.training holds.

`target:` chooses among the names listed in each field's type and nothing else; the trainer's registry maps them to
classes. Every section has defaults, which together describe SDXL base 1.0. Sources: the `config.json` files of
stabilityai/stable-diffusion-xl-base-1.0 for shapes, diffusers' class signatures for names.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from adapter_api.base import (
    S3URI,
    ConfigModel,
    Count,
    Flag,
    Fraction,
    ModelName,
    Name,
    NonNegativeReal,
    PositiveCount,
    PositiveReal,
    Real,
)
from adapter_api.messages import INCONSISTENT
from adapter_api.progress import MetricName

Null = Literal["learned", "zeros", "encoded"]
"""What stands in for a condition that is dropped, in training and in classifier-free guidance alike.

learned: tokens that are trained. zeros: tokens of zeros. encoded: the encoding of an input of zeros (for text, of "").
"""

PathText = Annotated[str, Field(min_length=1, max_length=4096)]
Text = Annotated[str, Field(max_length=10_000)]


class Source(ConfigModel):
    """Where the weights of a module come from; without `pretrained` it is built from `params`, seeded by `seed`."""

    pretrained: ModelName | None = None
    """Local folder, hub name or s3://bucket/prefix, in diffusers' or transformers' layout; safetensors only."""
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


# --- UNet, first stage, encoders ------------------------------------------------------------------------------------

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
    down_block_types: tuple[DownBlock, ...] = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    """Kinds of the blocks on the way down, as diffusers names them."""
    mid_block_type: Literal["UNetMidBlock2DCrossAttn"] | None = "UNetMidBlock2DCrossAttn"
    """Kind of the block in the middle; null for none."""
    up_block_types: tuple[UpBlock, ...] = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
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
    target_modules: Annotated[tuple[PathText, ...], Field(min_length=1)] = ("to_q", "to_k", "to_v", "to_out.0")
    """Names, or ends of names, of the layers that get them; by default those of all attention."""
    dropout: Annotated[Fraction, Field(lt=1)] = 0.0
    """Share of their inputs that training drops."""


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


class TextConfig(ConfigModel):
    """The text part of the conditioning sequence."""

    encoders: tuple[TextEncoderConfig, ...] = ()
    """Text encoders; SDXL has two."""
    dropout: Fraction = 0.1
    """Share of activations or conditions that training drops."""
    null_condition: Literal["zeros", "encoded"] = "zeros"
    """SDXL's pipelines use zeros when no negative prompt is given, and the encoded "" when it is given as ""."""


class ImageEncoderConfig(Source, Trainable):
    """What turns reference images into features for adapters."""

    target: Literal["CLIPVisionModelWithProjection"] = "CLIPVisionModelWithProjection"
    """Kind, by its name in the registry."""
    params: TransformerParams = TransformerParams()


# --- Adapters and token conditioners --------------------------------------------------------------------------------


class ProjectorParams(ConfigModel):
    """Shape of a projector from one condition to tokens."""

    num_tokens: Annotated[PositiveCount, Field(le=1024)] = 4
    """Tokens that it makes; a SequenceMLP makes one for each feature, whatever this says."""
    hidden_dim: PositiveCount | None = None
    """Width inside; by default the input's, and of an MLP its lowest multiple that is not below the output's."""
    depth: Annotated[PositiveCount, Field(le=64)] = 4
    """Layers of a PerceiverResampler."""
    heads: PositiveCount | None = None
    """Attention heads of a PerceiverResampler; by default hidden_dim over 64."""


class ProjectorConfig(ConfigModel):
    """How a condition becomes tokens.

    Linear: one layer and LayerNorm (IP-Adapter base). MLP: two layers, GELU and LayerNorm (IP-Adapter FaceID).
    SequenceMLP: the same for each feature of a sequence (IP-Adapter full).
    PerceiverResampler: learned queries over a sequence of features (IP-Adapter Plus, arXiv 2204.14198).
    """

    target: Literal["Linear", "MLP", "SequenceMLP", "PerceiverResampler"] = "Linear"
    """Kind, by its name in the registry."""
    params: ProjectorParams = ProjectorParams()

    @property
    def reads_sequence(self) -> bool:
        """Whether it reads the image encoder's penultimate states rather than the pooled embedding."""
        return self.target in ("SequenceMLP", "PerceiverResampler")


class Conditioned(Trainable):
    """What every module driven by one data column has."""

    train: Flag = True
    """Whether its weights are trained; else they are frozen."""
    column: Name | None = None
    """The data column that feeds this module; by default the first of a fitting kind."""
    dropout: Fraction = 0.1
    """Share of the samples whose condition is replaced by the null, drawn for each condition by itself."""
    null_condition: Null = "learned"
    """What a dropped condition becomes, in training and in guidance."""


class TokenConditionerConfig(Conditioned):
    """label_to_token or embed_to_token: tokens appended to the text's."""

    target: Literal["Linear", "MLP"] = "MLP"
    """Kind, by its name in the registry."""
    params: ProjectorParams = ProjectorParams()

    @property
    def projector(self) -> ProjectorConfig:
        """The same settings as an adapter's projector has."""
        return ProjectorConfig(target=self.target, params=self.params)


class TokenConditionersConfig(ConfigModel):
    """The modules whose tokens follow the text's, in this order."""

    label_to_token: TokenConditionerConfig | None = None
    embed_to_token: TokenConditionerConfig | None = None


class AdapterConfig(Conditioned):
    """One IP-Adapter: a projector, and a key and value matrix in each chosen cross-attention layer (arXiv 2308.06721)."""

    layers: Annotated[tuple[PathText, ...], Field(min_length=1)] = ("*",)
    """Shell patterns over layer names such as up_blocks.0.attentions.1.transformer_blocks.0.attn2."""
    projector: ProjectorConfig = ProjectorConfig()
    scale: Real = 1.0
    """Weight of the adapter's attention."""
    null_condition: Null = "encoded"
    """What a dropped condition becomes, in training and in guidance."""


# --- Diffusion ------------------------------------------------------------------------------------------------------


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
    unet_config: UNetConfig = UNetConfig()
    first_stage_config: FirstStageConfig = FirstStageConfig()
    text_config: TextConfig = TextConfig()
    image_encoder_config: ImageEncoderConfig | None = None
    adapters_config: dict[Name, AdapterConfig] = {}
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


# --- Data -----------------------------------------------------------------------------------------------------------

ColumnKind = Literal["label", "vector", "embedding", "reference"]


class Column(ConfigModel):
    """A column of the pairs file after `image` and `caption`."""

    name: Name
    """Name, unique among its kind."""
    kind: ColumnKind
    """label: an index from 0. vector: numbers separated by blanks or commas. embedding: a .npy or .safetensors file.
    reference: an image file."""
    width: PositiveCount | None = None
    """Number of classes, or length of the vector; by default read off the data."""


class CacheConfig(ConfigModel):
    """Latents, text states and image features, kept from what frozen encoders made of each picture and caption once."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: what is frozen and read more than once, if the disk has room. on: all of it, or an error. off: encoders run in
    every step."""
    folder: PathText | None = None
    """Where it is kept; by default `cache` in the output folder. Runs and nodes may share one."""
    uri: S3URI | None = None
    """s3://bucket/prefix that files of it are uploaded to while it is built, and fetched from before training starts, with
    the access that the output has; in place of `folder`. Everything there is fetched: give each data set and model its own."""
    precision: Literal["exact", "half"] = "exact"
    """exact: as the encoders gave it, so that losses are the same as without. half: 16 bits a number, half the room."""
    batch_size: Annotated[PositiveCount, Field(le=4096)] = 8
    """Pictures or captions that an encoder takes at once while the cache is built."""


class AspectBuckets(ConfigModel):
    """Sizes of about resolution x resolution pixels in several aspect ratios; every batch is of one size."""

    step: PositiveCount = 64
    """Heights and widths are multiples of it."""
    max_ratio: Annotated[PositiveReal, Field(ge=1, le=16)] = 2.0
    """Largest ratio of the longer to the shorter side."""


class DataParams(ConfigModel):
    """The samples and how they become tensors."""

    resolution: Annotated[PositiveCount, Field(le=8192)] = 1024
    """Height and width in pixels that images are resized and cropped to."""
    data_root_path: PathText = "/data"
    """Folder that every path in the pairs file is relative to and must stay inside."""
    pairs_file_path: PathText = "train.txt"
    """Relative to data_root_path, or absolute."""
    format: Literal["auto", "pairs", "csv", "jsonl"] = "auto"
    """pairs: image, tab, caption, tab, further columns. auto: by the file's ending; pairs unless .csv or .jsonl."""
    columns: tuple[Column, ...] | None = None
    """By default a label for label_to_token, then an embedding for embed_to_token."""
    image_mode: Literal["RGB", "L"] = "RGB"
    """Colour mode that images are converted to."""
    random_crop: Flag = False
    """Crop at a random place rather than at the centre; the UNet is told where."""
    random_flip: Flag = False
    """Whether images are mirrored at random."""
    aspect_buckets: AspectBuckets | None = None
    """Sizes for pictures that are not square; by default every picture is cropped to a square."""
    cache: CacheConfig = CacheConfig()
    num_workers: Annotated[Count, Field(le=256)] = 0
    """Processes that prepare samples, for each training process."""
    verify: Literal["decode", "open", "none"] = "decode"
    """What is checked of every image before the first step: all of it, its header, or only that it exists."""


class DataConfig(ConfigModel):
    """The data."""

    target: Literal["PairsDataset"] = "PairsDataset"
    """Kind, by its name in the registry."""
    params: DataParams = DataParams()


# --- Optimisation, checkpoints, logging, pictures -------------------------------------------------------------------


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
    """Times that every sample is read; max_train_steps overrides it."""
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


class KeepBest(ConfigModel):
    """The checkpoints whose metric is best; one without that metric is none of them, and of equals the earlier ones are."""

    metric: MetricName
    """A figure of the checkpoints' metrics.json: loss, or one that evaluation measures."""
    mode: Literal["min", "max"] = "min"
    """Whether the lowest or the highest is best."""
    count: PositiveCount = 1
    """How many of them."""


class CheckpointConfig(ConfigModel):
    """When state is saved and how much of it is kept."""

    save_steps: PositiveCount = 500
    """Optimizer steps between checkpoints; one more is always saved at the end."""
    keep_last: PositiveCount | None = None
    """Number of newest checkpoints to keep; all by default. The newest is never deleted before its successor stands, the
    one that the running attempt started from not before the attempt ends, and a pinned one not at all."""
    keep_every: PositiveCount | None = None
    """Keep also every checkpoint whose step is a multiple of this; needs keep_last, and must be a multiple of save_steps."""
    keep_best: KeepBest | None = None
    """Keep also those whose metric is best; needs keep_last."""
    deletion_delay_seconds: Annotated[Count, Field(le=604_800)] = 300
    """How long the files of a checkpoint stay in storage after it was taken out of the index, so that a download of it that
    has begun can end."""

    @model_validator(mode="after")
    def _policy(self) -> Self:
        for name in ("keep_every", "keep_best"):
            if self.keep_last is None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} adds to keep_last, without which all are kept; set keep_last, or remove {name}"
                )
        if self.keep_every is not None and self.keep_every % self.save_steps:
            fitting = -(-self.keep_every // self.save_steps) * self.save_steps
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of save_steps {self.save_steps}, so that most such steps "
                f"are never saved; use {fitting}"
            )
        return self


class LoggingConfig(ConfigModel):
    """What is reported, and how often."""

    log_steps: PositiveCount = 10
    """Optimizer steps between reports of the loss."""
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers."""
    project_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "adapter-training"
    """Project that trackers file runs under."""
    html_report: Flag = True
    """Keep logs/report.html: curves, pictures, configuration and timings on one page."""


ConditionValue = Count | Text | tuple[Real, ...]


class SamplingConfig(ConfigModel):
    """How pictures are drawn: at the end of a run, and by default whenever one is asked for."""

    scheduler: Literal["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"] = "DDIMScheduler"
    """Sampler."""
    steps: Annotated[PositiveCount, Field(le=10_000)] = 25
    """Steps of sampling."""
    guidance_scale: Annotated[NonNegativeReal, Field(le=100)] = 3.0
    """1 draws without guidance."""
    rows: tuple[dict[Name, ConditionValue], ...] = ()
    """One row of the closing picture grid each: values by data column, `caption` for text; none, no grid."""
    images_per_row: Annotated[PositiveCount, Field(le=64)] = 8
    """Pictures in a row of the grid."""
    at: Literal["checkpoints", "end"] = "checkpoints"
    """When the grid is drawn: with every checkpoint, or once at the end."""
    without_conditions: Flag = False
    """Draw every row of two or more conditions also without each of them: the same noise, so the difference is its doing."""
    adapter_scales: Annotated[tuple[Real, ...], Field(max_length=16)] = ()
    """Draw every row once with each of these weights of all adapters, 0 being without them; by default as trained."""
    seed: Count = 0
    """Everything random follows from it."""


class EvaluationConfig(ConfigModel):
    """What every checkpoint is measured by, on samples that training does not read.

    A loss says little about what conditions do. Measured are the loss with all conditions, and for each condition the
    share by which the loss grows without it; and, if pictures are drawn, whether they show the label that they were
    drawn for, and how like the sample's own image they are.
    """

    pairs_file_path: PathText
    """Held-out samples, in the form of data.params.pairs_file_path."""
    samples: Annotated[PositiveCount, Field(le=65_536)] = 128
    """Held-out samples that the loss is measured on; the first ones of the file."""
    timesteps: Annotated[PositiveCount, Field(le=64)] = 4
    """Noise levels at which each of them is measured, spread evenly over all."""
    pictures: Annotated[Count, Field(le=4096)] = 0
    """For the conditions of so many of them a picture is drawn and judged; drawing takes most of the time."""


class TrainingConfig(ConfigModel):
    """Everything that a training run depends on, apart from where it runs."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig | None = None
    seed: Annotated[Count, Field(le=2**32 - 1)] = 0
    """Everything random follows from it."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        from adapter_api.consistency import inconsistencies  # it imports this module: its rules read these models

        if faults := inconsistencies(self):
            details = [
                InitErrorDetails(
                    type=PydanticCustomError(INCONSISTENT, "{message}", {"message": message}), loc=location, input=None
                )
                for location, message in faults
            ]
            raise ValidationError.from_exception_data("TrainingConfig", details)
        return self
