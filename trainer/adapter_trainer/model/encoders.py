"""Frozen or trained encoders of captions and of reference images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPVisionModelWithProjection

from adapter_api.conditions import TextConfig
from adapter_api.networks import ImageEncoderConfig, TextEncoderConfig, TransformerParams
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import registry, sources

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI CLIP's image statistics (arXiv 2103.00020, preprocessor_config.json)."""


class TextEncoders(nn.Module):
    """All text encoders: penultimate states joined on the feature axis, pooled text from the last (arXiv 2307.01952)."""

    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    @property
    def width(self) -> int:
        """Width of the joined states."""
        widths: list[int] = [encoder.config.hidden_size for encoder in self.encoders]  # type: ignore[union-attr,misc]
        return sum(widths)

    @property
    def pooled_width(self) -> int:
        """Width of the pooled text."""
        last: Any = self.encoders[-1]
        return int(last.config.projection_dim if hasattr(last, "text_projection") else last.config.hidden_size)

    def forward(self, input_ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Token ids [B, L] for each encoder -> states [B, L, width], pooled [B, P]."""
        states, pooled = [], torch.empty(0)
        for encoder, ids in zip(self.encoders, input_ids, strict=True):
            trained = any(parameter.requires_grad for parameter in encoder.parameters())
            with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
                output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
        return torch.cat(states, dim=-1), pooled


class Tokenizers:
    """The tokenizers of all text encoders; kept apart from the model, because data workers need only these."""

    def __init__(self, tokenizers: Sequence[Any]) -> None:
        self.tokenizers = list(tokenizers)

    def __call__(self, captions: list[str]) -> list[Tensor]:
        """Captions -> ids [B, L] for each tokenizer, cut and padded to the encoder's length."""
        return [
            tokenizer(
                captions,
                padding="max_length",
                truncation=True,
                max_length=tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            for tokenizer in self.tokenizers
        ]

    def cut(self, captions: Sequence[str]) -> list[int]:
        """Indices of the captions that have more tokens than an encoder reads, and lose their ends."""
        shortest = min(int(tokenizer.model_max_length) for tokenizer in self.tokenizers)
        # No token is shorter than a byte, and two are put around every caption.
        long = [index for index, caption in enumerate(captions) if len(caption.encode(errors="replace")) + 2 > shortest]
        found: set[int] = set()
        for tokenizer in self.tokenizers if long else []:
            ids = tokenizer([captions[index] for index in long], truncation=False, verbose=False).input_ids
            limit = int(tokenizer.model_max_length)
            found |= {index for index, each in zip(long, ids, strict=True) if len(each) > limit}
        return sorted(found)


def tokenizers(config: TextConfig) -> Tokenizers | None:
    """The configured tokenizers; None without text encoders.

    Raises:
        InvalidConfig: one cannot be loaded.
    """
    if not config.encoders:
        return None
    loaded = []
    for index, encoder in enumerate(config.encoders):
        name = encoder.tokenizer or encoder.pretrained
        options = {
            "subfolder": encoder.tokenizer_subfolder,
            "revision": encoder.revision if name == encoder.pretrained else None,
        }
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **{key: value for key, value in options.items() if value})
        except (OSError, ValueError, KeyError) as error:
            raise InvalidConfig(
                f"model.params.text_config.encoders[{index}].tokenizer: {name} cannot be loaded: {error}"
            ) from error
        if encoder.pretrained is None and len(tokenizer) > encoder.params.vocab_size:
            raise InvalidConfig(
                f"model.params.text_config.encoders[{index}].params.vocab_size: is {encoder.params.vocab_size}, "
                f"but the tokenizer has {len(tokenizer)} tokens"
            )
        loaded.append(tokenizer)
    return Tokenizers(loaded)


def text_encoders(
    config: TextConfig, seed: int, texts: Tokenizers | None, precision: torch.dtype = torch.float32
) -> TextEncoders | None:
    """The configured text encoders, or None; frozen ones that are loaded, in `precision`."""
    if texts is None:
        return None
    built = []
    for index, (encoder, tokenizer) in enumerate(zip(config.encoders, texts.tokenizers, strict=True)):
        field = f"model.params.text_config.encoders[{index}]"
        special = {
            name: value
            for name in ("bos_token_id", "eos_token_id", "pad_token_id")
            if (value := getattr(tokenizer, name, None)) is not None
        }
        module = _encoder(encoder, f"text_encoder_{index}", seed, field, special, precision)
        if len(tokenizer) > (known := int(module.config.vocab_size)):
            raise InvalidConfig(
                f"{field}.tokenizer: has {len(tokenizer)} tokens, the encoder knows {known}; name the tokenizer that the "
                "encoder was trained with"
            )
        # A tokenizer without a limit of its own says a number beyond any memory.
        tokenizer.model_max_length = min(tokenizer.model_max_length, module.config.max_position_embeddings)
        built.append(module)
    return TextEncoders(built)


class ImageEncoder(nn.Module):
    """A CLIP vision encoder: pixels normalised to CLIP's statistics -> pooled features or the penultimate sequence."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def image_size(self) -> int:
        """Height and width in pixels that the encoder reads."""
        return int(self.encoder.config.image_size)  # type: ignore[union-attr,arg-type]

    @property
    def pooled_dim(self) -> int:
        """Width of the projected, pooled embedding."""
        return int(self.encoder.config.projection_dim)  # type: ignore[union-attr,arg-type]

    @property
    def sequence_dim(self) -> int:
        """Width of the hidden states."""
        return int(self.encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def sequence_length(self) -> int:
        """Number of hidden states: the patches and one more."""
        return (self.image_size // int(self.encoder.config.patch_size)) ** 2 + 1  # type: ignore[union-attr,arg-type]

    def forward(self, pixels: Tensor, *, sequence: bool) -> Tensor:
        """Pixels [B, 3, S, S] -> penultimate states [B, patches + 1, hidden], or pooled embeddings [B, pooled_dim]."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            output = self.encoder(pixels, output_hidden_states=sequence)
        features: Tensor = output.hidden_states[-2] if sequence else output.image_embeds
        return features


def image_encoder(
    config: ImageEncoderConfig | None, seed: int, precision: torch.dtype = torch.float32
) -> ImageEncoder | None:
    """The configured image encoder, or None; a frozen one that is loaded, in `precision`."""
    if config is None:
        return None
    return ImageEncoder(_encoder(config, "image_encoder", seed, "model.params.image_encoder_config", {}, precision))


_TEXT_ONLY = {"vocab_size", "max_position_embeddings"}
_VISION_ONLY = {"image_size", "patch_size"}


def new_encoder(config: TextEncoderConfig) -> Any:
    """A text encoder of a configuration that names nothing to load, whatever its tokenizer."""
    last = config.params.vocab_size - 1
    # transformers' own defaults are those of a vocabulary of 49408, and a smaller one gets a warning.
    special = {"bos_token_id": max(last - 1, 0), "eos_token_id": last, "pad_token_id": min(1, last)}
    return _encoder(config, "text_encoder", 0, "model.params.text_config.encoders", special, torch.float32)


def _encoder(
    config: TextEncoderConfig | ImageEncoderConfig,
    name: str,
    seed: int,
    field: str,
    special: dict[str, int],
    precision: torch.dtype,
) -> Any:
    if config.pretrained is not None:
        return sources.load(
            registry.MODULES[config.target], config, field, torch.float32 if config.train else precision
        )
    params: TransformerParams = config.params
    unused = _VISION_ONLY if isinstance(config, TextEncoderConfig) else _TEXT_ONLY
    shape = registry.ENCODER_CONFIGS[config.target](**params.model_dump(exclude=unused), **special)
    return sources.build(name, seed, lambda: _balanced(registry.MODULES[config.target](shape)), field)


@torch.no_grad()
def _balanced(encoder: Any) -> Any:
    """A new encoder whose states begin as loud as those of published ones; of images, also one that knows where patches are.

    transformers gives every embedding the deviation 0.02. A patch is the sum of hundreds of them: places begin twenty times
    quieter than pixels, and get louder only over millions of pictures; without them an adapter has no use for a sequence of
    patches. Of text the UNet reads states that no LayerNorm follows: they begin at 0.03, beside tokens of labels at 1, and all
    captions look the same to it.
    """
    if isinstance(encoder, CLIPVisionModelWithProjection):
        embeddings = encoder.vision_model.embeddings
        patches = embeddings.patch_embedding.weight
        patches.normal_(std=patches[0].numel() ** -0.5)
        embeddings.position_embedding.weight.normal_()
    else:
        for name, module in encoder.named_modules():
            if name.endswith(("token_embedding", "position_embedding")):
                module.weight.normal_(std=0.5**0.5)  # a state begins as the sum of both
    return encoder
