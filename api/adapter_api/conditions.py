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
    """The text part of the conditioning sequence."""

    encoders: Annotated[tuple[TextEncoderConfig, ...], Field(max_length=8)] = ()
    """Text encoders; SDXL has two."""
    dropout: Fraction = 0.1
    """Share of activations or conditions that training drops."""
    null_condition: Literal["zeros", "encoded"] = "zeros"
    """SDXL's pipelines use zeros when no negative prompt is given, and the encoded "" when it is given as ""."""


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


ProjectorKind = Literal["Linear", "MLP", "SequenceMLP", "PerceiverResampler"]
SEQUENCE_PROJECTORS: frozenset[str] = frozenset({"SequenceMLP", "PerceiverResampler"})
"""Those that read the image encoder's penultimate states, and no single vector."""


class ProjectorConfig(ConfigModel):
    """How a condition becomes tokens.

    Linear: one layer and LayerNorm (IP-Adapter base). MLP: two layers, GELU and LayerNorm (IP-Adapter FaceID).
    SequenceMLP: the same for each feature of a sequence (IP-Adapter full).
    PerceiverResampler: learned queries over a sequence of features (IP-Adapter Plus, arXiv 2204.14198).
    """

    target: ProjectorKind = "Linear"
    """Kind, by its name in the registry."""
    params: ProjectorParams = ProjectorParams()

    @property
    def reads_sequence(self) -> bool:
        """Whether it reads the image encoder's penultimate states rather than the pooled embedding."""
        return self.target in SEQUENCE_PROJECTORS


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
    pretrained: ModelName | None = None
    """Weights to begin with: a checkpoint folder, what `atj export` has written, or an IP-Adapter's .safetensors file; a local
    path, or s3://bucket/prefix of such an export. By default training begins from new ones."""


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
    """label_to_token or embed_to_token: tokens appended to the text's."""

    target: Literal["Linear", "MLP"] = "MLP"
    """Kind, by its name in the registry."""
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
    """The modules whose tokens follow the text's, in this order."""

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
    """One IP-Adapter: a projector, and a key and value matrix in each chosen cross-attention layer (arXiv 2308.06721)."""

    layers: Annotated[tuple[PathText, ...], Field(min_length=1, max_length=256)] = ("*",)
    """Shell patterns over layer names such as up_blocks.0.attentions.1.transformer_blocks.0.attn2."""
    projector: ProjectorConfig = ProjectorConfig()
    scale: Real = 1.0
    """Weight of the adapter's attention."""
    null_condition: Null = "encoded"
    """What a dropped condition becomes, in training and in guidance."""
