"""Text and image encoders give what the UNet and the projectors expect, from parameters or from a folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextModelWithProjection

from adapter_api.conditions import TextConfig
from adapter_api.networks import ImageEncoderConfig, TextEncoderConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.encoders import (
    TextEncoders,
    Tokenizers,
    image_encoder,
    new_encoder,
    text_encoders,
    tokenizers,
)
from tests.trainer.support import tiny


def text_config(*encoders: dict[str, Any]) -> TextConfig:
    return TextConfig.model_validate({"encoders": encoders})


def built(*encoders: dict[str, Any]) -> tuple[TextEncoders, Tokenizers]:
    config = text_config(*encoders)
    texts = tokenizers(config)
    encoded = text_encoders(config, 0, texts)
    assert texts is not None
    assert encoded is not None
    return encoded, texts


def test_states_are_the_penultimate_ones_joined_and_pooled_text_is_the_last_encoders(tokenizer: Path) -> None:
    encoders, texts = built(
        tiny.text_encoder(tokenizer), tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")
    )
    ids = texts(["a cat", "a dog"])
    states, pooled = encoders(ids)
    assert encoders.width == 32
    outputs = [encoder(each, output_hidden_states=True) for encoder, each in zip(encoders.encoders, ids, strict=True)]
    expected = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(pooled, outputs[1].text_embeds)


def test_captions_are_cut_and_padded_to_the_encoders_length(tokenizer: Path) -> None:
    _, texts = built(tiny.text_encoder(tokenizer))
    (ids,) = texts(["a", "abcdefghijklmnopqrstuvwxyz"])
    assert ids.shape == (2, 12)


def test_a_tokenizer_without_a_limit_takes_the_encoders(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"model_max_length": 12', '"model_max_length": 1000000000000'))
    _, texts = built(tiny.text_encoder(tmp_path))
    assert texts(["a"])[0].shape == (1, 12)


def test_a_saved_encoder_gives_what_the_built_one_gave(tokenizer: Path, tmp_path: Path) -> None:
    encoders, texts = built(tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection"))
    encoder = encoders.encoders[0]
    assert isinstance(encoder, CLIPTextModelWithProjection)
    encoder.save_pretrained(tmp_path)
    loaded, _ = built(
        {"target": "CLIPTextModelWithProjection", "pretrained": str(tmp_path), "tokenizer": str(tokenizer)}
    )
    ids = texts(["a cat"])
    for one, other in zip(encoders(ids), loaded(ids), strict=True):
        torch.testing.assert_close(one, other)


def test_a_tokenizer_that_cannot_be_loaded_names_its_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"text_config\.encoders\[0\]\.tokenizer: .*gone cannot be loaded"):
        tokenizers(text_config(tiny.text_encoder(tmp_path / "gone")))


def test_a_vocabulary_smaller_than_the_tokenizers_names_its_field(tokenizer: Path) -> None:
    encoder = tiny.text_encoder(tokenizer)
    encoder["params"]["vocab_size"] = 20
    with pytest.raises(InvalidConfig, match=r"encoders\[0\]\.params\.vocab_size: is 20, but the tokenizer has 74"):
        tokenizers(text_config(encoder))


def test_an_image_becomes_one_embedding_or_a_sequence() -> None:
    encoder = image_encoder(ImageEncoderConfig.model_validate(tiny.IMAGE_ENCODER), seed=0)
    assert encoder is not None
    pixels = torch.zeros(2, 3, encoder.image_size, encoder.image_size)
    assert encoder(pixels, sequence=False).shape == (2, encoder.pooled_dim)
    assert encoder(pixels, sequence=True).shape == (2, 4 + 1, encoder.sequence_dim)


def test_a_new_encoder_tells_patches_of_one_colour_apart() -> None:
    config = ImageEncoderConfig.model_validate(
        {"params": {"hidden_size": 64, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}}
    )
    states = image_encoder(config, seed=0)(torch.full((1, 3, 32, 32), 1.9), sequence=True)[0, 1:].detach()  # type: ignore[misc]
    likeness = torch.nn.functional.cosine_similarity(states[:, None], states[None], dim=-1)
    apart = likeness[~torch.eye(16, dtype=torch.bool)]
    assert float(apart.mean()) < 0.9


def test_a_new_text_encoder_is_as_loud_as_tokens_of_labels_and_tells_captions_apart(tokenizer: Path) -> None:
    encoders, texts = built(tiny.text_encoder(tokenizer))
    states = encoders(texts(["a cat", "z 9"]))[0].detach()
    assert 0.5 < float(states.std()) < 2  # a LayerNorm ends what makes tokens of labels: 1
    apart = (states[0] - states[1])[1:4].norm() / states[0, 1:4].norm()
    assert float(apart) > 0.5


def test_a_frozen_encoder_keeps_no_graph(tokenizer: Path) -> None:
    encoders, texts = built(tiny.text_encoder(tokenizer))
    encoders.requires_grad_(requires_grad=False)
    assert not encoders(texts(["a"]))[0].requires_grad
    encoders.requires_grad_()
    assert encoders(texts(["a"]))[0].requires_grad


def test_a_loaded_encoder_that_knows_fewer_tokens_than_the_tokenizer_is_refused(
    tokenizer: Path, tmp_path: Path
) -> None:
    config = TextConfig.model_validate({"encoders": [tiny.text_encoder(tokenizer)]})
    built = text_encoders(config, 0, tokenizers(config))
    assert built is not None
    small: Any = built.encoders[0]
    small.resize_token_embeddings(60)
    small.save_pretrained(tmp_path)
    loaded = TextConfig.model_validate({"encoders": [{"pretrained": str(tmp_path), "tokenizer": str(tokenizer)}]})
    with pytest.raises(InvalidConfig, match=r"encoders\[0\]\.tokenizer: has 74 tokens, the encoder knows 60; name the"):
        text_encoders(loaded, 0, tokenizers(loaded))


def test_captions_that_lose_their_ends_are_found(tokenizer: Path) -> None:
    texts = tokenizers(TextConfig.model_validate({"encoders": [tiny.text_encoder(tokenizer)]}))
    assert texts is not None
    assert texts.cut(["short", "a b c d e f g h i j", "a b c d e f g h i j k", "spaces       only", "x" * 40]) == [2, 4]


@pytest.mark.parametrize("size", [1, 542])
def test_an_encoder_of_a_small_vocabulary_has_its_special_tokens_in_it(size: int) -> None:
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    given = {"target": "CLIPTextModel", "train": True, "tokenizer": "words", "params": {**shape, "vocab_size": size}}
    config = new_encoder(TextEncoderConfig.model_validate(given)).config
    assert all(0 <= token < size for token in (config.bos_token_id, config.eos_token_id, config.pad_token_id))
