"""The model: wires the parts of a configuration together, and predicts."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from adapter_api.conditions import Conditioned, adapter_path, conditioner_path
from adapter_api.networks import Trainable
from adapter_api.training import TrainingConfig
from adapter_trainer.model import fit
from adapter_trainer.model.adapters import attach
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.lora import LoraWeights
from adapter_trainer.model.parts import Parts, parts_of
from adapter_trainer.model.token_conditioners import conditioning_sequence

_TEXT = ("text.states", "text.pooled")
"""Encodings of a caption, among all encodings."""


@dataclass
class Conditions:
    """The conditions of a batch: all inputs of the UNet except latents and timesteps."""

    columns: dict[str, Tensor]
    """By data column: vectors [B, width]; reference images [B, 3, S, S], normalised for the image encoder."""
    dropped: dict[str, Tensor]
    """By condition (`text`, `label_to_token`, `adapters.<name>`, …): whether each sample has the null, [B] bool."""
    time_ids: Tensor
    """[B, 6]: original height and width, crop top and left, target height and width, in pixels (arXiv 2307.01952)."""
    input_ids: list[Tensor]
    """Caption tokens [B, L] for each text encoder."""
    null_ids: list[Tensor]
    """Tokens of the empty caption [1, L] for each text encoder."""
    encoded: dict[str, Tensor] = field(default_factory=dict)
    """Encodings that frozen encoders made before training, [B, ...]: `text.states`, `text.pooled`, and by `feature_name`."""
    encoded_nulls: dict[str, Tensor] = field(default_factory=dict)
    """Encodings of the empty caption and of empty pictures, [1, ...], by the same names."""
    keeps_encoded: bool = False
    """Whether the first prediction fills in the two fields above, for conditions that many predictions use."""


def feature_name(column: str, *, sequence: bool) -> str:
    """Returns the name of an image encoder's features of a column: the penultimate states, or the pooled embedding."""
    return f"{column}.{'sequence' if sequence else 'pooled'}"


class AdapterModel(nn.Module):
    """Everything between noisy latents and the prediction. Each part is a module of its own, frozen or trained."""

    def __init__(self, parts: Parts) -> None:
        """Wires the parts: puts adapters into the UNet's attention, and freezes or trains weights as configured."""
        super().__init__()
        self.params = parts.params
        self.tokenizers = parts.tokenizers
        self.first_stage = parts.first_stage
        self.text_encoders = parts.text_encoders
        self.image_encoder = parts.image_encoder
        self.unet: UNet2DConditionModel = parts.unet
        self.token_dim = parts.token_dim
        self.columns = parts.columns
        self.token_conditioners = nn.ModuleDict(parts.token_conditioners)
        self.adapters = nn.ModuleDict(parts.adapters)
        self._parts = parts
        attach(self.unet, parts.adapters)
        self.requires_grad_(False)
        for _, module, settings in self.trainable_parts():
            if settings.train:
                module.requires_grad_(True)
        self.train()
        if self.params.unet_config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    @classmethod
    def of(cls, config: TrainingConfig) -> "AdapterModel":
        """Builds the model that `config` describes; the widths of its columns must be known.

        Raises:
            InvalidConfig: A part cannot be built or loaded, or does not fit the others.
        """
        parts = parts_of(config)
        fit.check(parts, config)
        return cls(parts)

    def train(self, mode: bool = True) -> "AdapterModel":  # noqa: FBT001, FBT002 - torch's own signature
        """Switches to training or evaluation mode; frozen parts stay in evaluation mode, however they were built."""
        super().train(mode)
        self.first_stage.eval()
        for _, module, settings in self.trainable_parts():
            module.train(mode and settings.train)
        return self

    # --- parts ---

    def trainable_parts(self) -> Iterator[tuple[str, nn.Module, Trainable]]:
        """Yields name, module and settings (`train`, `learning_rate`) of every part that a flag freezes or trains."""
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
            yield name, conditioner, self.params.token_conditioners.present[name]
        for name, adapter in self.adapters.items():
            yield adapter_path(name).part, adapter, self.params.adapters_config[name]

    @property
    def lora(self) -> LoraWeights | None:
        """The low-rank weights in the UNet, if there are any. They are not a child module: the UNet owns and saves them."""
        return self._parts.lora

    def saved_parts(self) -> dict[str, nn.Module]:
        """Returns the parts that a checkpoint must hold: trained ones, and those that no folder or hub name restores."""
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
        """Returns the modules that encode pictures and captions; they run in every step unless encodings are cached."""
        if isinstance(self.first_stage, Autoencoder):
            yield self.first_stage.vae.encoder
        if self.text_encoders is not None:
            yield self.text_encoders
        if self.image_encoder is not None:
            yield self.image_encoder

    def condition_dropouts(self) -> dict[str, float]:
        """Returns the share of dropped samples by condition, with the keys of `Conditions.dropped`."""
        dropouts = {"text": self.params.text_config.dropout} if self.text_encoders is not None else {}
        for name in self.token_conditioners:
            dropouts[name] = self.params.token_conditioners.present[name].dropout
        for name in self.adapters:
            dropouts[adapter_path(name).condition] = self.params.adapters_config[name].dropout
        return dropouts

    def reference_features(self) -> set[tuple[str, bool]]:
        """Returns the columns whose pictures the image encoder reads, each with whether its sequence of states is used."""
        names = [(name, self.columns[adapter_path(name)]) for name in self.adapters]
        return {(column.name, self._reads_sequence(name)) for name, column in names if column.is_reference}

    def _reads_sequence(self, adapter: str) -> bool:
        return self.params.adapters_config[adapter].projector.reads_sequence

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Returns channels, height and width of the latents of an image."""
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
            {name: conditions.columns[self.columns[conditioner_path(name)].name] for name in self.token_conditioners},
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
        """Runs the UNet on prepared conditions: sequence [B, L, token_dim], tokens by adapter, pooled text [B, P]."""
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
        """Encodes the conditions that are not encoded yet, in the forward pass, because only there autocast applies."""
        encoded, nulls = conditions.encoded, conditions.encoded_nulls
        if self.text_encoders is not None and _TEXT[0] not in encoded:
            for found, ids in ((encoded, conditions.input_ids), (nulls, conditions.null_ids)):
                found.update(zip(_TEXT, self.text_encoders(ids), strict=True))
        if self.image_encoder is None:
            return
        for column, sequence in self.reference_features():
            if (name := feature_name(column, sequence=sequence)) not in encoded:
                pixels = conditions.columns[column]
                encoded[name] = self.image_encoder(pixels, sequence=sequence)
                nulls[name] = self.image_encoder(torch.zeros_like(pixels[:1]), sequence=sequence)

    def _text(self, conditions: Conditions, like: Tensor) -> tuple[Tensor | None, Tensor]:
        if self.text_encoders is None:
            unet = self.unet.config
            if unet.addition_embed_type != "text_time":
                return None, like.new_zeros(0)
            width = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
            return None, like.new_zeros(like.shape[0], width)
        dropped, is_encoded = conditions.dropped["text"], self.params.text_config.null_condition == "encoded"
        found = _read(
            self.text_encoders,
            conditions.input_ids,
            conditions.null_ids,
            conditions,
            _TEXT,
            dropped if is_encoded else None,
        )
        states, pooled = found if is_encoded else [with_null(each, each.new_zeros(()), dropped) for each in found]
        return states, pooled

    def _adapter_tokens(self, name: str, conditions: Conditions) -> Tensor:
        column, dropped = self.columns[adapter_path(name)], conditions.dropped[adapter_path(name).condition]
        values = self._of_pictures(name, conditions) if column.is_reference else conditions.columns[column.name]
        adapter = self.adapters[name]
        tokens: Tensor = adapter.tokens(values, dropped)  # type: ignore[operator]
        return tokens

    def _of_pictures(self, name: str, conditions: Conditions) -> Tensor:
        column, sequence = self.columns[adapter_path(name)].name, self._reads_sequence(name)
        pictures = [conditions.columns[column]] if column in conditions.columns else []
        # Of a dropped picture's pooled embedding the tokens are told: there, its null is zeros.
        is_encoded = sequence and self.params.adapters_config[name].null_condition == "encoded"
        [features] = _read(
            functools.partial(self._features, sequence=sequence),
            pictures,
            [torch.zeros_like(each[:1]) for each in pictures],
            conditions,
            [feature_name(column, sequence=sequence)],
            conditions.dropped[adapter_path(name).condition] if is_encoded else None,
        )
        return features

    def _features(self, pictures: list[Tensor], *, sequence: bool) -> list[Tensor]:
        if self.image_encoder is None:
            raise TypeError("there is no image encoder")
        return [self.image_encoder(each, sequence=sequence) for each in pictures]


def with_null(values: Tensor, null: Tensor, dropped: Tensor) -> Tensor:
    """Returns `values` [B, ...] with the null for the samples that are dropped, [B] bool."""
    return torch.where(dropped.view(-1, *(1,) * (values.ndim - 1)), null, values)


def _read(
    encode: Callable[[list[Tensor]], Sequence[Tensor]],
    inputs: list[Tensor],
    empty: list[Tensor],
    conditions: Conditions,
    names: Sequence[str],
    dropped: Tensor | None,
) -> list[Tensor]:
    """Returns an encoder's output for its inputs, computed now or taken from the cached encodings under `names`.

    Samples in `dropped` have the encoding of the empty input.
    """
    if names[0] in conditions.encoded:
        values, nulls = conditions.encoded, conditions.encoded_nulls
        return [values[name] if dropped is None else with_null(values[name], nulls[name], dropped) for name in names]
    if dropped is not None:
        inputs = [with_null(given, null, dropped) for given, null in zip(inputs, empty, strict=True)]
    return list(encode(inputs))
