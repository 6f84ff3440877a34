"""Weights come from safetensors in a local folder or from a seed; never from a pickle."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from diffusers import UNet2DConditionModel

from adapter_api.conditions import TextConfig
from adapter_api.model import ModelParams
from adapter_api.sources import staged_name, with_pipeline_sources
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.encoders import text_encoders, tokenizers
from adapter_trainer.model.sources import build, with_local_models
from tests.trainer.support import tiny


@pytest.fixture
def unet() -> Any:
    torch.manual_seed(5)
    return UNet2DConditionModel(**tiny.UNET, addition_embed_type="text_time", sample_size=8)


def model_from(folder: Path, **source: Any) -> AdapterModel:
    unet = {"pretrained": str(folder), "train": False, **source}
    settings = tiny.settings(changes={"model": {"params": {"unet_config": unet}}})
    return AdapterModel.of(tiny.configuration(settings))


def test_a_unet_saved_by_diffusers_is_loaded(unet: Any, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    loaded = model_from(tmp_path)
    saved = unet.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.unet.state_dict().items())
    assert "unet" not in loaded.saved_parts()
    assert "unet" in model_from(tmp_path, train=True).saved_parts()


def test_a_subfolder_and_a_variant_are_found(unet: Any, tmp_path: Path) -> None:
    unet.half().save_pretrained(tmp_path / "unet", variant="fp16")
    loaded = model_from(tmp_path, subfolder="unet", variant="fp16")
    torch.testing.assert_close(loaded.unet.conv_in.weight, unet.conv_in.weight.float())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_what_is_trained_is_held_in_32_bits_however_it_is_stored_and_the_rest_as_it_computes(
    unet: Any, tmp_path: Path, precision: str
) -> None:
    unet.half().save_pretrained(tmp_path)
    types = {}
    for train in (True, False):
        source = {"pretrained": str(tmp_path), "train": train}
        changes = {"model": {"params": {"unet_config": source}}, "optimization": {"mixed_precision": precision}}
        loaded = AdapterModel.of(tiny.configuration(tiny.settings(changes=changes)))
        types[train] = {parameter.dtype for parameter in loaded.unet.parameters()}
    assert types == {True: {torch.float32}, False: {torch.bfloat16 if precision == "bf16" else torch.float32}}


def test_a_folder_with_a_pickle_only_is_refused(unet: Any, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(InvalidConfig) as caught:
        model_from(tmp_path)
    assert str(caught.value).startswith(
        f"model.params.unet_config: {tmp_path} cannot be loaded as UNet2DConditionModel"
    )
    assert "safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", '{"_class_name": "UNet2DConditionModel"}'], ids=["no", "bad", "empty"])
def test_a_folder_without_a_model_names_the_field(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidConfig, match=r"model\.params\.unet_config: .* cannot be loaded as UNet2DConditionModel"):
        model_from(tmp_path)


def test_a_unet_that_does_not_fit_the_images_names_the_field(unet: Any, tmp_path: Path) -> None:
    UNet2DConditionModel(**{**tiny.UNET, "in_channels": 3}, addition_embed_type="text_time").save_pretrained(tmp_path)
    with pytest.raises(InvalidConfig, match=r"model\.params\.unet_config: takes 3 channels, the first stage gives 1"):
        model_from(tmp_path)


def test_construction_depends_on_name_and_seed_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    weights = {
        (seed, name): build(name, seed, lambda: torch.nn.Linear(3, 3), "field").weight
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len({weight.detach().numpy().tobytes() for weight in weights.values()}) == 4
    torch.rand(7)
    again = build("a", 0, lambda: torch.nn.Linear(3, 3), "field").weight
    assert torch.equal(again, weights[0, "a"])
    torch.set_rng_state(before)
    build("a", 0, lambda: torch.nn.Linear(3, 3), "field")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pipeline_gives_every_part_without_a_source_its_folder() -> None:
    params = ModelParams.model_validate(
        {"pretrained_model_name_or_path": "sdxl", "first_stage_config": {"pretrained": "better-vae"}}
    )
    filled = with_pipeline_sources(params)
    assert (filled.unet_config.pretrained, filled.unet_config.subfolder) == ("sdxl", "unet")
    assert (filled.first_stage_config.pretrained, filled.first_stage_config.subfolder) == ("better-vae", None)
    folders = [(each.subfolder, each.tokenizer, each.tokenizer_subfolder) for each in filled.text_config.encoders]
    assert folders == [("text_encoder", "sdxl", "tokenizer"), ("text_encoder_2", "sdxl", "tokenizer_2")]


def test_a_pipelines_revision_and_variant_are_those_of_its_parts_that_name_none() -> None:
    params = ModelParams.model_validate(
        {
            "pretrained_model_name_or_path": "sdxl", "revision": "462165", "variant": "fp16",
            "first_stage_config": {"pretrained": "better-vae"}, "unet_config": {"variant": "bf16"},
        }
    )  # fmt: skip
    filled = with_pipeline_sources(params)
    parts = (filled.unet_config, filled.first_stage_config, *filled.text_config.encoders)
    named = [(part.revision, part.variant) for part in parts]
    assert named == [("462165", "bf16"), (None, None), ("462165", "fp16"), ("462165", "fp16")]


def test_what_a_hub_repository_held_at_a_revision_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits, as a node keeps them that has loaded both; encoder and tokenizer come from the same."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--us--clip"
    shape = tiny.text_encoder(tmp_path)["params"]
    for commit, positions, names in (("a" * 40, 12, ("main",)), ("b" * 40, 8, ("old",))):
        folder = repository / "snapshots" / commit
        tiny.write_tokenizer(folder)
        text = (folder / "tokenizer_config.json").read_text()
        (folder / "tokenizer_config.json").write_text(
            text.replace('"model_max_length": 12', f'"model_max_length": {positions}')
        )
        configuration = transformers.CLIPTextConfig(**{**shape, "max_position_embeddings": positions})
        transformers.CLIPTextModel(configuration).save_pretrained(folder)
        for name in names:
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / name).write_text(commit)
    lengths = {}
    for revision in (None, "old", "b" * 40):
        encoder = {"pretrained": "us/clip", **({} if revision is None else {"revision": revision})}
        config = TextConfig.model_validate({"encoders": [encoder]})
        texts = tokenizers(config)
        assert texts is not None
        read = texts.tokenizers[0].model_max_length
        encoders = text_encoders(config, 0, texts)
        assert encoders is not None
        encoder_config: Any = encoders.encoders[0].config
        lengths[revision] = (read, encoder_config.max_position_embeddings)
    assert lengths == {None: (12, 12), "old": (8, 8), "b" * 40: (8, 8)}


def test_an_address_in_object_storage_is_read_from_the_folder_that_it_was_fetched_to(unet: Any, tmp_path: Path) -> None:
    address = "s3://bucket/unet"
    settings = tiny.settings(changes={"model": {"params": {"unet_config": {"pretrained": address, "train": False}}}})
    config = tiny.configuration(settings)
    for models in (None, tmp_path):
        with pytest.raises(
            InvalidConfig, match=r"unet_config\.pretrained: s3://bucket/unet has not been fetched: `atj"
        ):
            with_local_models(config, models)
    unet.save_pretrained(tmp_path / staged_name(address))
    local = with_local_models(config, tmp_path)
    assert torch.equal(AdapterModel.of(local).unet.conv_in.weight, unet.conv_in.weight)
    assert config.model.params.unet_config.pretrained == address
