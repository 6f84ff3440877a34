"""What frozen encoders make of each picture and caption once: which encodings a run needs, their keys, how each is made.

An encoding is found by the content that it was made of (the key) and by everything else that it follows from (the
folder's name): weights, tokenizers, transform, precision.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapter_api.training import TrainingConfig
from adapter_trainer.data.cache.shards import Item, Shards
from adapter_trainer.data.contents import Content
from adapter_trainer.data.images import Size, cut, place, reference_image, stacked
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.model.adapter_model import AdapterModel, feature_name
from adapter_trainer.model.first_stage import Autoencoder

VERSION = 3
"""Goes up when the same input would give other numbers."""

LATENTS, TEXT = "latents", "text"


@dataclass
class Encoding:
    """One kind of encoding: what has to be there, and how it is made."""

    name: str
    shards: Shards
    sources: dict[str, Any]
    """What is encoded, by key."""
    load: Callable[[Any], Any]
    """Reads one source; runs in threads."""
    encode: Callable[[list[Any]], Item]
    """Loaded sources of one group -> tensors [B, ...]."""
    group: Callable[[Any], Hashable] = field(default=lambda _: 0)
    """Only sources of the same group go into one batch."""


@dataclass
class Encodings:
    """All of a run's, and how a sample finds its own."""

    kinds: list[Encoding]
    contents: dict[Path, Content]
    nulls: dict[str, Tensor]
    """Of the empty caption and the empty picture, [1, ...]; the keys are those of `of_row`."""
    features: dict[str, tuple[str, str]]
    """Name in `of_row` -> column of reference images, kind of encoding."""
    image_mode: str
    """Colour mode that samples' own pictures go through; those of reference columns are RGB."""

    def __post_init__(self) -> None:
        self.by_name = {kind.name: kind.shards for kind in self.kinds}

    @property
    def has_latents(self) -> bool:
        """Whether pictures need not be read."""
        return LATENTS in self.by_name

    @property
    def has_text(self) -> bool:
        """Whether captions need not be tokenized."""
        return TEXT in self.by_name

    def of_row(self, row: Row, size: Size, caption: str, *, flip: bool) -> Item:
        """What one reading of a sample needs: `latents` [2, C, h, w]; `text.states`, `text.pooled`; image features."""
        item: Item = {}
        if self.has_latents:
            item[LATENTS] = self.by_name[LATENTS].read(latents_key(self.contents[row.image], size, flip=flip))[LATENTS]
        if self.has_text:
            item |= {f"text.{part}": value for part, value in self.by_name[TEXT].read(text_key(caption)).items()}
        for name, (column, kind) in self.features.items():
            path = row.image if column == "image" else row.values[column]
            if isinstance(path, Path):
                mode = self.image_mode if column == "image" else "RGB"
                item[name] = self.by_name[kind].read(image_key(self.contents[path], mode))["features"]
        # What was kept in 16 bits to save room is not what modules of 32 bits take.
        return {name: value.float() if value.dtype == torch.float16 else value for name, value in item.items()}


def latents_key(content: Content, size: Size, *, flip: bool) -> str:
    """Key of the latents of a picture that is cropped at its centre."""
    return f"{content.digest}-{size[0]}x{size[1]}{'-flipped' if flip else ''}"


def image_key(content: Content, mode: str) -> str:
    """Key of the features of a picture that went through a colour mode."""
    return content.digest if mode == "RGB" else f"{content.digest}-{mode}"


def text_key(caption: str) -> str:
    """Key of a caption's states."""
    return hashlib.blake2b(caption.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def fingerprint(*made_by: object) -> str:
    """Digest of what makes an encoding: modules by their weights, everything else by its text."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (VERSION, *made_by):
        if isinstance(part, nn.Module):
            for name, value in sorted(part.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


class Plan:
    """Finds out what a run needs encoded; `autocast` is what training's forward pass runs in."""

    def __init__(
        self,
        config: TrainingConfig,
        model: AdapterModel,
        rows: list[Row],
        contents: dict[Path, Content],
        sizes: list[Size],
        folder: Path,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """`sizes` are those of the rows' samples; the model's frozen parts have the precision that they compute in."""
        self.config = config
        self.params = config.data.params
        self.model = model
        self.rows = rows
        self.contents = contents
        self.sizes = sizes
        self.folder = folder
        self.device = device
        self.autocast = autocast

    def encodings(self) -> Encodings:
        """Every encoding that frozen parts of the model make, apart from latents of random crops."""
        kinds, nulls = [], dict[str, Tensor]()
        if isinstance(self.model.first_stage, Autoencoder) and not self.params.random_crop:
            kinds.append(self._latents(self.model.first_stage))
        if self.model.text_encoders is not None and not _is_trained(self.model.text_encoders):
            kinds.append(self._text())
            nulls |= self._text_nulls()
        features: dict[str, tuple[str, str]] = {}
        if self.model.image_encoder is not None and not _is_trained(self.model.image_encoder):
            for column, sequence in sorted(self.model.reference_features()):
                features[feature_name(column, sequence=sequence)] = (column, f"image-{_kind(sequence)}")
            kinds += [self._images(sequence) for sequence in sorted({s for _, s in self.model.reference_features()})]
            nulls |= self._image_nulls()
        return Encodings(kinds, self.contents, nulls, features, self.params.image_mode)

    def _shards(self, kind: str, *made_by: object) -> Shards:
        made = fingerprint(kind, self.params.cache.precision, *made_by)
        return Shards(self.folder / f"{kind}-{made}")

    def _stored(self, item: Item) -> Item:
        is_half = self.params.cache.precision == "half"
        on_host = {name: value.detach().cpu() for name, value in item.items()}
        return {
            name: value.half() if is_half and value.dtype == torch.float32 else value for name, value in on_host.items()
        }

    # --- latents ---

    def _latents(self, stage: Autoencoder) -> Encoding:
        sources = {}
        for row, size in zip(self.rows, self.sizes, strict=True):
            for flip in (False, True) if self.params.random_flip else (False,):
                sources[latents_key(self.contents[row.image], size, flip=flip)] = (row.image, size, flip)

        def load(source: tuple[Path, Size, bool]) -> Any:
            path, size, flip = source
            pixels = np.asarray(open_picture(path, self.params.background).convert(self.params.image_mode))
            original = (pixels.shape[0], pixels.shape[1])
            return cut(pixels, place(original, size, self.params, None)._replace(flip=flip))

        def encode(pictures: list[Any]) -> Item:
            images = torch.from_numpy(stacked(pictures)).to(self.device)
            return self._stored({LATENTS: stage.posterior(images)})

        shards = self._shards(
            LATENTS, stage.vae, _settings(stage.vae.config), self.params.image_mode, self.params.background
        )
        return Encoding(LATENTS, shards, sources, load, encode, group=lambda source: source[1])

    # --- text ---

    def _text(self) -> Encoding:
        encoders, tokenizers = self.model.text_encoders, self.model.tokenizers
        if encoders is None or tokenizers is None:
            raise TypeError("there is no text encoder")
        sources = {text_key(caption): caption for row in self.rows for caption in row.captions}
        made_by = [_tokenizer_text(tokenizer) for tokenizer in tokenizers.tokenizers]
        shards = self._shards(
            TEXT, encoders, [_settings(each.config) for each in encoders.encoders], made_by, self._mode()
        )
        return Encoding(
            TEXT, shards, sources, lambda caption: caption, lambda captions: self._stored(self._text_item(captions))
        )

    def _text_item(self, captions: list[str]) -> Item:
        encoders, tokenizers = self.model.text_encoders, self.model.tokenizers
        if encoders is None or tokenizers is None:
            raise TypeError("there is no text encoder")
        ids = [each.to(self.device) for each in tokenizers(captions)]
        with torch.no_grad(), self.autocast():
            states, pooled = encoders(ids)
        return {"states": states, "pooled": pooled}

    def _text_nulls(self) -> Item:
        return {f"text.{part}": value for part, value in self._text_item([""]).items()}

    # --- reference images ---

    def _images(self, sequence: bool) -> Encoding:  # noqa: FBT001 - one of two kinds
        encoder = self.model.image_encoder
        if encoder is None:
            raise TypeError("there is no image encoder")
        size, sources = encoder.image_size, {}
        for row in self.rows:
            for column, kind in self.model.reference_features():
                path = row.image if column == "image" else row.values[column]
                if kind == sequence and isinstance(path, Path):
                    mode = self.params.image_mode if column == "image" else "RGB"
                    sources[image_key(self.contents[path], mode)] = (path, mode)

        def load(source: tuple[Path, str]) -> Any:
            path, mode = source
            return reference_image(open_picture(path, self.params.background).convert(mode), size)

        def encode(pictures: list[Any]) -> Item:
            return self._stored({"features": self._features(torch.from_numpy(np.stack(pictures)), sequence=sequence)})

        made_by = (encoder, _settings(encoder.encoder.config), size, self._mode(), self.params.background)
        return Encoding(
            f"image-{_kind(sequence)}", self._shards(f"image-{_kind(sequence)}", *made_by), sources, load, encode
        )

    def _features(self, pixels: Tensor, *, sequence: bool) -> Tensor:
        encoder = self.model.image_encoder
        if encoder is None:
            raise TypeError("there is no image encoder")
        with torch.no_grad(), self.autocast():
            features: Tensor = encoder(pixels.to(self.device), sequence=sequence)
        return features

    def _image_nulls(self) -> Item:
        nulls = {}
        for column, sequence in self.model.reference_features():
            if sequence and self.model.image_encoder is not None:
                size = self.model.image_encoder.image_size
                features = self._features(torch.zeros(1, 3, size, size), sequence=True)
                nulls[feature_name(column, sequence=True)] = features
        return nulls

    def _mode(self) -> str:
        return self.config.optimization.mixed_precision


def _kind(sequence: bool) -> str:  # noqa: FBT001 - one of two kinds
    return "sequence" if sequence else "pooled"


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _tokenizer_text(tokenizer: Any) -> tuple[str, int]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    # These two are what the last call asked for.
    kept = {name: value for name, value in rules.items() if name not in {"truncation", "padding"}}
    return repr(kept or sorted(tokenizer.get_vocab().items())), int(tokenizer.model_max_length)


def _settings(config: Any) -> dict[str, Any]:
    """Of a module, without where it came from and what saved it."""
    settings = dict(config) if isinstance(config, Mapping) else config.to_dict()
    return {
        name: value
        for name, value in sorted(settings.items())
        if not name.startswith("_") and name not in {"transformers_version", "dtype", "torch_dtype"}
    }
