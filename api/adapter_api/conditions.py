"""How text, labels, embeddings and images condition a model: tokens, adapters, and what stands in for what is dropped."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from adapter_api.base import ConfigModel, Flag, Fraction, ModelName, Name, PathText, PositiveCount, Real
from adapter_api.data import ColumnKind
from adapter_api.networks import TextEncoderConfig, Trainable

Null = Literal["learned", "zeros", "encoded"]
"""What stands in for a condition that is dropped, in training and in classifier-free guidance alike.

learned: tokens that are trained. zeros: tokens of zeros. encoded: the encoding of an input of zeros (for text, of "").
"""


class TextConfig(ConfigModel):
    """The text condition: encoders, dropout and null condition."""

    encoders: Annotated[tuple[TextEncoderConfig, ...], Field(max_length=8)] = ()
    """Text encoders; SDXL has two. By default those of the pipeline, if one is named."""
    dropout: Fraction = 0.1
    """Share of the samples whose caption is replaced by the null condition, from 0 to 1. Guidance needs some dropout;
    0.1 is usual."""
    null_condition: Literal["zeros", "encoded"] = "zeros"
    """What replaces a dropped caption: zeros, or the encoding of "". SDXL's pipelines use zeros if no negative prompt
    is given, and the encoded "" if the negative prompt is ""."""


class ProjectorParams(ConfigModel):
    """Shape of a projector from one condition to tokens."""

    num_tokens: Annotated[PositiveCount, Field(le=1024)] = 4
    """Number of tokens that the projector makes. Ignored by SequenceMLP, which makes one token per feature."""
    hidden_dim: PositiveCount | None = None
    """Width of the hidden layers; by default the width of the input (MLP: its smallest multiple that is at least the
    output's width)."""
    depth: Annotated[PositiveCount, Field(le=64)] = 4
    """Number of layers; only PerceiverResampler uses it."""
    heads: PositiveCount | None = None
    """Number of attention heads; only PerceiverResampler uses it. By default hidden_dim / 64."""


ProjectorKind = Literal["Linear", "MLP", "SequenceMLP", "PerceiverResampler"]
SEQUENCE_PROJECTORS: frozenset[str] = frozenset({"SequenceMLP", "PerceiverResampler"})
"""Those that read the image encoder's penultimate states, and no single vector."""


class ProjectorConfig(ConfigModel):
    """The projector that turns a condition into tokens.

    Linear: one layer and LayerNorm (IP-Adapter base). MLP: two layers, GELU and LayerNorm (IP-Adapter FaceID).
    SequenceMLP: an MLP applied to each feature of a sequence (IP-Adapter full).
    PerceiverResampler: learned queries over a sequence of features (IP-Adapter Plus, arXiv 2204.14198).
    """

    target: ProjectorKind = "Linear"
    """Kind of projector."""
    params: ProjectorParams = ProjectorParams()

    @property
    def reads_sequence(self) -> bool:
        """Whether it reads the image encoder's penultimate states rather than the pooled embedding."""
        return self.target in SEQUENCE_PROJECTORS


class Conditioned(Trainable):
    """Settings shared by all modules that one data column feeds."""

    train: Flag = True
    """Whether the module is trained; false freezes its weights."""
    column: Name | None = None
    """Data column that feeds this module; by default the first column of a suitable kind."""
    dropout: Fraction = 0.1
    """Share of the samples whose condition is replaced by the null condition, from 0 to 1, drawn independently per
    condition. Guidance needs some dropout; 0.1 is usual."""
    null_condition: Null = "learned"
    """What replaces the condition when it is dropped in training, and in the unconditional pass of guidance."""
    pretrained: ModelName | None = None
    """Weights to start from: a checkpoint folder, the folder of an `atj export`, or a published IP-Adapter's .safetensors file.
    Name a local path, s3://bucket/prefix, or owner/repository/file on the hub, such as
    h94/IP-Adapter/sdxl_models/ip-adapter_sdxl_vit-h.safetensors. By default training starts from new weights."""


@dataclass(frozen=True)
class ModulePath:
    """A module that a data column feeds, under each of its names."""

    section: Literal["token_conditioners", "adapters_config"]
    name: str

    @property
    def is_adapter(self) -> bool:
        """Whether it is an IP-Adapter; else it is a token conditioner."""
        return self.section == "adapters_config"

    @property
    def location(self) -> tuple[str, str]:
        """Its place below model.params."""
        return self.section, self.name

    @property
    def field(self) -> str:
        """The field that describes it."""
        return f"model.params.{self.section}.{self.name}"

    @property
    def condition(self) -> str:
        """The condition that it gives the model, in figures such as `gain.adapters.style` and in what is dropped."""
        return f"adapters.{self.name}" if self.is_adapter else self.name

    @property
    def part(self) -> str:
        """The part of the model, and its file in a checkpoint."""
        return f"adapter-{self.name}" if self.is_adapter else self.name

    @property
    def module(self) -> str:
        """The module in the model, where the names of its weights begin."""
        return f"adapters.{self.name}" if self.is_adapter else f"{self.section}.{self.name}"


def adapter_path(name: str) -> ModulePath:
    """Of the adapter of this name."""
    return ModulePath("adapters_config", name)


def conditioner_path(name: str) -> ModulePath:
    """Of the token conditioner of this name."""
    return ModulePath("token_conditioners", name)


class TokenConditionerConfig(Conditioned):
    """A token conditioner: its tokens are appended to the text tokens."""

    target: Literal["Linear", "MLP"] = "MLP"
    """Kind of projector."""
    params: ProjectorParams = ProjectorParams()

    @property
    def projector(self) -> ProjectorConfig:
        """The same settings as an adapter's projector has."""
        return ProjectorConfig(target=self.target, params=self.params)


@dataclass(frozen=True)
class Feed:
    """Which data columns can feed a token conditioner."""

    kinds: tuple[ColumnKind, ...]
    """Of these kinds; where no columns are declared, there is one of the first kind."""
    column: str
    """What that one is called."""


class TokenConditionersConfig(ConfigModel):
    """Token conditioners, whose tokens follow the text tokens in this order."""

    label_to_token: Annotated[TokenConditionerConfig | None, Feed(("label", "vector"), "label")] = None
    embed_to_token: Annotated[TokenConditionerConfig | None, Feed(("embedding", "vector"), "embedding")] = None

    @classmethod
    def feeds(cls) -> dict[str, Feed]:
        """What feeds each of them, by name; in the order of their tokens."""
        return {
            name: feed for name, field in cls.model_fields.items() for feed in field.metadata if isinstance(feed, Feed)
        }

    @property
    def present(self) -> dict[str, TokenConditionerConfig]:
        """Those that are configured, by name; in the order of their tokens."""
        return {name: conditioner for name, conditioner in self if conditioner is not None}


class AdapterConfig(Conditioned):
    """One IP-Adapter: a projector, and a key and a value matrix in each chosen cross-attention layer.

    See arXiv 2308.06721.
    """

    layers: Annotated[tuple[PathText, ...], Field(min_length=1, max_length=256)] = ("*",)
    """Shell patterns that choose cross-attention layers by name, such as
    up_blocks.0.attentions.1.transformer_blocks.0.attn2; by default all layers."""
    projector: ProjectorConfig = ProjectorConfig()
    scale: Real = 1.0
    """Factor by which the adapter's attention is multiplied."""
    null_condition: Null = "encoded"
    """What replaces the condition when it is dropped in training, and in the unconditional pass of guidance."""
