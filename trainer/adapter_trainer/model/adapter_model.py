"""The model: a UNet, its conditions and its adapters, put together from a configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from adapter_api.columns import column_of
from adapter_api.conditions import Conditioned
from adapter_api.model import ModelParams
from adapter_api.networks import Trainable
from adapter_api.sources import with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import fit, lora_file, part_weights, registry, sources
from adapter_trainer.model.adapters import Adapter, AdapterLayer, attach, cross_attention_layers, matching_layers
from adapter_trainer.model.encoders import (
    ImageEncoder,
    TextEncoders,
    Tokenizers,
    image_encoder,
    text_encoders,
    tokenizers,
)
from adapter_trainer.model.first_stage import Autoencoder, Pixels, first_stage
from adapter_trainer.model.lora import LoraWeights
from adapter_trainer.model.projectors import ConditionTokens
from adapter_trainer.model.token_conditioners import TOKEN_CONDITIONERS, conditioning_sequence


@dataclass
class Conditions:
    """What a batch of samples is conditioned on; the UNet's inputs apart from latents and timesteps."""

    columns: dict[str, Tensor]
    """By data column: vectors [B, width]; reference images [B, 3, S, S], normalised for the image encoder."""
    dropped: dict[str, Tensor]
    """By module path (`text`, `label_to_token`, `adapters.<name>`, …): samples whose condition is its null, [B] bool."""
    time_ids: Tensor
    """[B, 6]: original height and width, crop top and left, target height and width, in pixels (arXiv 2307.01952)."""
    input_ids: list[Tensor]
    """Caption tokens [B, L] for each text encoder."""
    null_ids: list[Tensor]
    """Tokens of the empty caption [1, L] for each text encoder."""
    encoded: dict[str, Tensor] = field(default_factory=dict)
    """What frozen encoders made before training, [B, ...]: `text.states`, `text.pooled`, and by `feature_name`."""
    encoded_nulls: dict[str, Tensor] = field(default_factory=dict)
    """The same of the empty caption and of empty pictures, [1, ...]."""
    keeps_encoded: bool = False
    """Whether the first prediction fills in the two above: for conditions that are predicted from many times."""


def feature_name(column: str, *, sequence: bool) -> str:
    """Name of the image encoder's features of a column: the penultimate states, or the pooled embedding."""
    return f"{column}.{'sequence' if sequence else 'pooled'}"


class AdapterModel(nn.Module):
    """Everything between noisy latents and the prediction. Each part is a module of its own, frozen or trained."""

    def __init__(self, config: TrainingConfig) -> None:
        """Builds or loads every part of `config`, whose column widths must be known.

        What is loaded and not trained has the precision that it is computed in from the start: half the room on the way.

        Raises:
            InvalidConfig: a part that cannot be built or loaded, or does not fit the others.
        """
        super().__init__()
        params = with_pipeline_sources(config.model.params)
        self.params = params
        channels = {"RGB": 3, "L": 1}[config.data.params.image_mode]
        self.tokenizers: Tokenizers | None = tokenizers(params.text_config)
        precision = registry.WEIGHT_TYPES[config.optimization.mixed_precision]
        self.first_stage: Pixels | Autoencoder = first_stage(
            params.first_stage_config, channels, config.seed, precision
        )
        self.text_encoders: TextEncoders | None = text_encoders(
            params.text_config, config.seed, self.tokenizers, precision
        )
        self.image_encoder: ImageEncoder | None = image_encoder(params.image_encoder_config, config.seed, precision)
        self.unet: UNet2DConditionModel = _unet(params, config, self.first_stage.factor)
        self.token_dim = int(self.unet.config.cross_attention_dim)
        self.columns = _columns(config)
        self.token_conditioners = nn.ModuleDict(
            {
                path.split(".")[1]: self._token_conditioner(config, path, module)
                for path, module in config.model.conditioned.items()
                if path.startswith("token_conditioners.")
            }
        )
        self.adapters = nn.ModuleDict({name: self._adapter(config, name) for name in params.adapters_config})
        attach(self.unet, {name: adapter for name, adapter in self.adapters.items() if isinstance(adapter, Adapter)})
        fit.check(self, config)
        # Not a child of its own: its weights are the UNet's, and would be saved twice.
        self._lora = (self._low_rank(config),)
        self._freeze()

    # --- construction ---

    def _token_conditioner(self, config: TrainingConfig, path: str, module: Conditioned) -> ConditionTokens:
        name = path.split(".")[1]
        settings = getattr(config.model.params.token_conditioners, name)
        projector, width = settings.projector, self.columns[path].width
        built = sources.build(
            name,
            config.seed,
            lambda: TOKEN_CONDITIONERS[name](
                registry.PROJECTORS[projector.target](width, self.token_dim, projector.params),
                self.token_dim,
                module.null_condition,
            ),
            f"model.params.{path}",
        )
        if module.pretrained is not None:
            part_weights.begin_conditioner(built, name, module.pretrained, f"model.params.{path}")
        return built

    def _adapter(self, config: TrainingConfig, name: str) -> Adapter:
        settings = config.model.params.adapters_config[name]
        field = f"model.params.adapters_config.{name}"
        column, projector = self.columns[f"adapters_config.{name}"], settings.projector
        width, shape = column.width, projector.params
        if column.is_reference:
            if self.image_encoder is None:
                raise InvalidConfig(f"{field}: takes reference images; set model.params.image_encoder_config")
            width = self.image_encoder.sequence_dim if projector.reads_sequence else self.image_encoder.pooled_dim
            if projector.target == "SequenceMLP":
                shape = shape.model_copy(update={"num_tokens": self.image_encoder.sequence_length})
        available = cross_attention_layers(self.unet)
        chosen = matching_layers(settings.layers, list(available), f"{field}.layers")
        tokens = sources.build(
            f"adapters.{name}",
            config.seed,
            lambda: ConditionTokens(
                registry.PROJECTORS[projector.target](width, self.token_dim, shape),
                self.token_dim,
                settings.null_condition,
            ),
            f"{field}.projector",
        )
        adapter = Adapter(tokens, {layer: AdapterLayer(available[layer]) for layer in chosen}, settings.scale)
        if settings.pretrained is not None:
            part_weights.begin_adapter(adapter, name, self.unet, settings.pretrained, field)
        return adapter

    def _low_rank(self, config: TrainingConfig) -> LoraWeights | None:
        settings = self.params.unet_config.lora
        if settings is None:
            return None
        field = "model.params.unet_config.lora"
        built = sources.build("unet_lora", config.seed, lambda: LoraWeights(self.unet, settings), field)
        if settings.pretrained is not None:
            lora_file.begin_lora(built, settings.pretrained, field)
        return built

    def _freeze(self) -> None:
        self.requires_grad_(False)
        for _, module, settings in self.trainable_parts():
            if settings.train:
                module.requires_grad_(True)
        self.train()
        if self.params.unet_config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def train(self, mode: bool = True) -> "AdapterModel":  # noqa: FBT001, FBT002 - torch's own signature
        """Training or evaluation mode; what is frozen stays in evaluation mode, however it was built."""
        super().train(mode)
        self.first_stage.eval()
        for _, module, settings in self.trainable_parts():
            module.train(mode and settings.train)
        return self

    # --- parts ---

    def trainable_parts(self) -> Iterator[tuple[str, nn.Module, Trainable]]:
        """Name, module and settings (`train`, `learning_rate`) of every part that a flag freezes or trains."""
        yield "unet", self.unet, self.params.unet_config
        if self.lora is not None and self.params.unet_config.lora is not None:
            yield "unet_lora", self.lora, self.params.unet_config.lora
        if self.text_encoders is not None:
            encoders = zip(self.text_encoders.encoders, self.params.text_config.encoders, strict=True)
            for index, (encoder, settings) in enumerate(encoders):
                yield f"text_encoder_{index}", encoder, settings
        if self.image_encoder is not None and self.params.image_encoder_config is not None:
            yield "image_encoder", self.image_encoder, self.params.image_encoder_config
        for name, conditioner in self.token_conditioners.items():
            yield name, conditioner, getattr(self.params.token_conditioners, name)
        for name, adapter in self.adapters.items():
            yield f"adapter-{name}", adapter, self.params.adapters_config[name]

    @property
    def lora(self) -> LoraWeights | None:
        """The low-rank weights in the UNet, if there are any."""
        return self._lora[0]

    def saved_parts(self) -> dict[str, nn.Module]:
        """Parts that a checkpoint must hold: the trained ones, and those that no folder or hub name could give back."""
        parts = {
            name: module
            for name, module, settings in self.trainable_parts()
            # What conditions begin with is small, and may be a checkpoint that is gone tomorrow: it is always kept.
            if settings.train or isinstance(settings, Conditioned) or getattr(settings, "pretrained", None) is None
        }
        if "unet" in parts:
            parts.pop("unet_lora", None)  # they are in it
        stage = self.params.first_stage_config
        if isinstance(self.first_stage, Autoencoder) and stage.pretrained is None:
            parts["first_stage"] = self.first_stage
        return parts

    def encoders(self) -> Iterator[nn.Module]:
        """What turns pictures and captions into what the UNet reads; in every step, where nothing was encoded before."""
        if isinstance(self.first_stage, Autoencoder):
            yield self.first_stage.vae.encoder
        if self.text_encoders is not None:
            yield self.text_encoders
        if self.image_encoder is not None:
            yield self.image_encoder

    def condition_dropouts(self) -> dict[str, float]:
        """Share of dropped samples by module path; the keys of `Conditions.dropped`."""
        dropouts = {"text": self.params.text_config.dropout} if self.text_encoders is not None else {}
        for name in self.token_conditioners:
            dropouts[name] = getattr(self.params.token_conditioners, name).dropout
        for name in self.adapters:
            dropouts[f"adapters.{name}"] = self.params.adapters_config[name].dropout
        return dropouts

    def reference_features(self) -> set[tuple[str, bool]]:
        """Columns whose pictures the image encoder reads, and whether for its sequence of states."""
        names = [(name, self.columns[f"adapters_config.{name}"]) for name in self.adapters]
        return {(column.name, self._reads_sequence(name)) for name, column in names if column.is_reference}

    def _reads_sequence(self, adapter: str) -> bool:
        return self.params.adapters_config[adapter].projector.reads_sequence

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image."""
        side = resolution // self.first_stage.factor
        return self.first_stage.channels, side, side

    # --- prediction ---

    def forward(self, latents: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """Noisy latents [B, C, H, W] and timesteps [B] -> prediction [B, C, H, W]."""
        if conditions.keeps_encoded:
            self._encode(conditions)
        text, pooled = self._text(conditions, latents)
        sequence = conditioning_sequence(
            text,
            self.token_conditioners,
            {name: conditions.columns[self._column(f"token_conditioners.{name}")] for name in self.token_conditioners},
            conditions.dropped,
            batch_size=latents.shape[0],
            token_dim=self.token_dim,
            like=latents,
        )
        tokens = {name: self._adapter_tokens(name, conditions) for name in self.adapters}
        return self.denoise(latents, timesteps, sequence, tokens, pooled, conditions.time_ids)

    def denoise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        sequence: Tensor,
        tokens: dict[str, Tensor],
        pooled: Tensor,
        time_ids: Tensor,
    ) -> Tensor:
        """The UNet on conditions as it reads them: sequence [B, L, token_dim], tokens by adapter, pooled text [B, P]."""
        micro = None
        if self.unet.config.addition_embed_type == "text_time":
            micro = {"text_embeds": pooled, "time_ids": time_ids}
        prediction: Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=sequence,
            added_cond_kwargs=micro,
            cross_attention_kwargs={"ip_hidden_states": tokens} if tokens else None,
            return_dict=False,
        )[0]
        return prediction

    def _encode(self, conditions: Conditions) -> None:
        """Fills in what is not encoded of the conditions yet; in the forward pass, which alone has its precision."""
        encoded, nulls = conditions.encoded, conditions.encoded_nulls
        if self.text_encoders is not None and "text.states" not in encoded:
            for found, ids in ((encoded, conditions.input_ids), (nulls, conditions.null_ids)):
                found["text.states"], found["text.pooled"] = self.text_encoders(ids)
        if self.image_encoder is None:
            return
        for column, sequence in self.reference_features():
            if (name := feature_name(column, sequence=sequence)) not in encoded:
                pixels = conditions.columns[column]
                encoded[name] = self.image_encoder(pixels, sequence=sequence)
                nulls[name] = self.image_encoder(torch.zeros_like(pixels[:1]), sequence=sequence)

    def _column(self, path: str) -> str:
        return self.columns[path].name

    def _text(self, conditions: Conditions, like: Tensor) -> tuple[Tensor | None, Tensor]:
        if self.text_encoders is None:
            unet = self.unet.config
            if unet.addition_embed_type != "text_time":
                return None, like.new_zeros(0)
            width = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
            return None, like.new_zeros(like.shape[0], width)
        dropped = conditions.dropped["text"]
        if "text.states" in conditions.encoded:
            return self._encoded_text(conditions, dropped)
        ids = conditions.input_ids
        if self.params.text_config.null_condition == "encoded":
            nulls = conditions.null_ids
            ids = [torch.where(dropped[:, None], null, given) for null, given in zip(nulls, ids, strict=True)]
            states: Tensor
            pooled: Tensor
            states, pooled = self.text_encoders(ids)
            return states, pooled
        states, pooled = self.text_encoders(ids)
        return states.masked_fill(dropped[:, None, None], 0), pooled.masked_fill(dropped[:, None], 0)

    def _encoded_text(self, conditions: Conditions, dropped: Tensor) -> tuple[Tensor, Tensor]:
        given, nulls = conditions.encoded, conditions.encoded_nulls
        if self.params.text_config.null_condition == "zeros":
            nulls = {name: torch.zeros_like(given[name][:1]) for name in ("text.states", "text.pooled")}
        states = torch.where(dropped[:, None, None], nulls["text.states"], given["text.states"])
        return states, torch.where(dropped[:, None], nulls["text.pooled"], given["text.pooled"])

    def _adapter_tokens(self, name: str, conditions: Conditions) -> Tensor:
        column, settings = self.columns[f"adapters_config.{name}"], self.params.adapters_config[name]
        dropped, sequence = conditions.dropped[f"adapters.{name}"], self._reads_sequence(name)
        features = feature_name(column.name, sequence=sequence)
        if features in conditions.encoded:
            values = conditions.encoded[features]
            if sequence and settings.null_condition == "encoded":
                values = torch.where(dropped[:, None, None], conditions.encoded_nulls[features], values)
        else:
            values = conditions.columns[column.name]
            if column.is_reference and self.image_encoder is not None:
                if sequence and settings.null_condition == "encoded":
                    values = values.masked_fill(dropped[:, None, None, None], 0)
                values = self.image_encoder(values, sequence=sequence)
        adapter = self.adapters[name]
        tokens: Tensor = adapter.tokens(values, dropped)  # type: ignore[operator]
        return tokens


@dataclass(frozen=True)
class ConditionColumn:
    """The column that feeds a module."""

    name: str
    width: int
    """Of its vectors; 0 for reference images, whose features have the image encoder's width."""
    is_reference: bool


def _columns(config: TrainingConfig) -> dict[str, ConditionColumn]:
    columns = {}
    for path, module in config.model.conditioned.items():
        column = column_of(config, path, module)
        if column is None:
            raise InvalidConfig(f"model.params.{path}: has no data column")
        is_reference = column.kind == "reference"
        if column.width is None and not is_reference:
            raise InvalidConfig(f"data.params.columns: the width of column {column.name!r} is not known; set `width`")
        columns[path] = ConditionColumn(column.name, column.width or 0, is_reference)
    return columns


def _unet(params: ModelParams, config: TrainingConfig, factor: int) -> UNet2DConditionModel:
    settings, field = params.unet_config, "model.params.unet_config"
    if settings.pretrained is not None:
        dtype = torch.float32 if settings.train else registry.WEIGHT_TYPES[config.optimization.mixed_precision]
        loaded: UNet2DConditionModel = sources.load(registry.MODULES[settings.target], settings, field, dtype)
        return loaded
    shape = settings.params.model_dump()
    shape["sample_size"] = shape["sample_size"] or config.data.params.resolution // factor
    if shape["addition_embed_type"] is None:
        del shape["addition_time_embed_dim"], shape["projection_class_embeddings_input_dim"]
    return sources.build("unet", config.seed, lambda: UNet2DConditionModel(**shape), f"{field}.params")
