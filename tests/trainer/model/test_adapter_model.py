"""The model is put together as configured: what is trained changes, what conditions it changes the prediction."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.adapter_model import AdapterModel, Conditions
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny
from tests.trainer.support.tiny import Settings

TEXT_UNET = {"params": {"projection_class_embeddings_input_dim": 48 + 16}}


def everything(tokenizer: Path) -> Settings:
    """All kinds of parts at once."""
    return {
        "text_config": {"encoders": [tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")]},
        "image_encoder_config": tiny.IMAGE_ENCODER,
        "token_conditioners": {"embed_to_token": {"column": "shape", "dropout": 0.5}},
        "adapters_config": {
            "picture": {"projector": {"target": "Linear"}},
            "plus": {
                "projector": {"target": "PerceiverResampler", "params": {"depth": 1, "heads": 2}},
                "layers": ["up_blocks"],
            },
            "digit": {"column": "digit", "null_condition": "learned", "projector": {"target": "MLP"}},
        },
    }


def model_settings(data: Path, params: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Settings:
    return tiny.merged(tiny.settings(data, {"model": {"params": params}}), changes or {})


def conditions(config: TrainingConfig, model: AdapterModel, **changes: Any) -> Conditions:
    """Conditions of two samples; `changes` replace some."""
    generator = torch.Generator().manual_seed(0)
    columns = {"digit": torch.eye(3)[:2], "shape": torch.randn(2, 5, generator=generator)}
    columns["image"] = torch.randn(2, 3, 16, 16, generator=generator)
    names = ["text", *model.condition_dropouts()]
    ids = [] if model.tokenizers is None else model.tokenizers(["a cat", "two dogs"])
    given: dict[str, Any] = {
        "columns": columns,
        "dropped": {name: torch.zeros(2, dtype=torch.bool) for name in names},
        "time_ids": torch.tensor([[10.0, 8, 1, 0, 8, 8]] * 2),
        "input_ids": ids,
        "null_ids": [] if model.tokenizers is None else model.tokenizers([""]),
    }
    return Conditions(**{**given, **changes})


def predict(config: TrainingConfig, model: AdapterModel, **changes: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, *model.latent_shape(8), generator=generator)
    with torch.no_grad():
        prediction: Tensor = model(latents, torch.tensor([3, 700]), conditions(config, model, **changes))
    return prediction


@pytest.fixture(scope="module")
def whole(tokenizer: Path) -> tuple[TrainingConfig, AdapterModel]:
    config = tiny.configuration(model_settings(Path("/data"), everything(tokenizer)))
    return config, AdapterModel.of(config).eval()


PARTS = [
    "unet", "text_encoder_0", "image_encoder", "label_to_token", "embed_to_token",
    "adapter-picture", "adapter-plus", "adapter-digit",
]  # fmt: skip


def flags(chosen: str, tokenizer: Path) -> Settings:
    """`everything`, with only the part `chosen` trained, at a rate of its own."""

    def flag(name: str) -> Settings:
        return {"train": True, "learning_rate": 0.01} if name == chosen else {"train": False}

    parts = everything(tokenizer)
    encoder = {**parts["text_config"]["encoders"][0], **flag("text_encoder_0")}
    return tiny.merged(
        parts,
        {
            "unet_config": flag("unet"),
            "text_config": {"encoders": [encoder]},
            "image_encoder_config": flag("image_encoder"),
            "token_conditioners": {name: flag(name) for name in ("label_to_token", "embed_to_token")},
            "adapters_config": {name: flag(f"adapter-{name}") for name in parts["adapters_config"]},
        },
    )


@pytest.mark.parametrize("chosen", PARTS)
def test_exactly_the_flagged_part_is_trained(data: Path, tokenizer: Path, tmp_path: Path, chosen: str) -> None:
    config = tiny.configuration(
        model_settings(data, flags(chosen, tokenizer), {"optimization": {"max_train_steps": 2}})
    )
    run = setup.prepare(config, setup.RunOptions(tmp_path, show=lambda line: None))
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    loop.take_step(run)
    loop.take_step(run)
    changed = {name for name, value in run.state.model.state_dict().items() if not torch.equal(value, before[name])}
    groups = {name: group for group in run.state.optimizer.param_groups for name in group["names"]}
    assert changed
    assert changed <= set(groups)
    part = {name: module for name, module, _ in run.state.model.trainable_parts()}[chosen]
    ids = {id(parameter) for parameter in part.parameters()}
    assert {id(parameter) for group in groups.values() for parameter in group["params"]} == ids
    assert {group["lr"] for group in groups.values()} == {0.01}


def test_every_part_has_a_learning_rate_of_its_own(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    rates = {"unet_config": {"learning_rate": 0.5}, "adapters_config": {"digit": {"learning_rate": 0.25}}}
    config = tiny.configuration(model_settings(data, tiny.merged(everything(tokenizer), rates)))
    run = setup.prepare(config, setup.RunOptions(tmp_path, show=lambda line: None))
    found = {group["names"][0].split(".")[0:2][-1]: group["lr"] for group in run.state.optimizer.param_groups}
    assert found == {
        "conv_in": 0.5, "label_to_token": 0.002, "embed_to_token": 0.002, "picture": 0.002, "plus": 0.002, "digit": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["digit", "shape", "image"])
def test_every_column_changes_the_prediction(whole: tuple[TrainingConfig, AdapterModel], name: str) -> None:
    config, model = whole
    columns = conditions(config, model).columns
    other = predict(config, model, columns={**columns, name: columns[name].flip(0)})
    assert not torch.equal(predict(config, model), other)


def test_captions_change_the_prediction_through_tokens_and_pooled_text(
    whole: tuple[TrainingConfig, AdapterModel],
) -> None:
    config, model = whole
    assert model.tokenizers is not None
    assert model.text_encoders is not None
    one, other = (model.text_encoders(model.tokenizers([text])) for text in ("a cat", "a dog"))
    assert one[0].shape == (1, 12, 16)
    assert one[1].shape == (1, 16)
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
    swapped = predict(config, model, input_ids=model.tokenizers(["two dogs", "a cat"]))
    assert not torch.equal(predict(config, model), swapped)


def test_micro_conditioning_reaches_the_unet(whole: tuple[TrainingConfig, AdapterModel]) -> None:
    config, model = whole
    ids = torch.tensor([[10.0, 8, 1, 0, 8, 8]] * 2)
    for index in range(6):
        other = ids.clone()
        other[:, index] += 64
        assert not torch.equal(predict(config, model, time_ids=other), predict(config, model)), index


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("label_to_token", "digit"), ("embed_to_token", "shape"), ("adapters.digit", "digit"),
        ("adapters.picture", "image"), ("adapters.plus", "image"),
    ],
)  # fmt: skip
def test_each_condition_is_dropped_by_itself(
    whole: tuple[TrainingConfig, AdapterModel], name: str, column: str
) -> None:
    config, model = whole
    dropped = {**conditions(config, model).dropped, name: torch.tensor([False, True])}
    kept, without = predict(config, model), predict(config, model, dropped=dropped)
    torch.testing.assert_close(kept[0], without[0])
    assert not torch.allclose(kept[1], without[1])


@pytest.mark.parametrize("null", ["zeros", "encoded"])
def test_dropped_text_is_zeros_or_the_empty_caption(data: Path, tokenizer: Path, null: str) -> None:
    parts = tiny.merged(everything(tokenizer), {"text_config": {"null_condition": null}})
    config = tiny.configuration(model_settings(data, parts))
    model = AdapterModel.of(config).eval()
    assert model.tokenizers is not None
    dropped = {**conditions(config, model).dropped, "text": torch.tensor([True, True])}
    without = predict(config, model, dropped=dropped)
    torch.testing.assert_close(without, predict(config, model, dropped=dropped, input_ids=model.tokenizers(["x", "y"])))
    empty = predict(config, model, input_ids=model.tokenizers(["", ""]))
    assert torch.allclose(empty, without) == (null == "encoded")


@pytest.mark.parametrize("null", ["zeros", "encoded"])
def test_kept_conditions_are_encoded_once_and_predict_the_same(data: Path, tokenizer: Path, null: str) -> None:
    parts = tiny.merged(everything(tokenizer), {"text_config": {"null_condition": null}})
    config = tiny.configuration(model_settings(data, parts))
    model = AdapterModel.of(config).eval()
    assert model.text_encoders is not None
    assert model.image_encoder is not None
    reads: list[str] = []
    model.text_encoders.register_forward_hook(lambda *_: reads.append("text"))
    model.image_encoder.register_forward_hook(lambda *_: reads.append("image"))
    kept = conditions(config, model, keeps_encoded=True)
    latents, timesteps = torch.randn(2, *model.latent_shape(8)), torch.tensor([3, 700])
    for name in ("", *kept.dropped):
        dropped = {**kept.dropped, name: torch.tensor([False, True])} if name else kept.dropped
        with torch.no_grad():
            before = len(reads)
            once = model(latents, timesteps, replace(kept, dropped=dropped))
            # The captions, the references' states and their pooled embeddings, and each of their nulls.
            assert sorted(reads[before:]) == ([] if name else ["image"] * 4 + ["text"] * 2)
            anew = model(latents, timesteps, conditions(config, model, dropped=dropped))
        torch.testing.assert_close(once, anew)


def test_adapters_alone_condition_a_frozen_unet(data: Path) -> None:
    params = {"adapters_config": {"digit": {"column": "digit"}}, "unet_config": {"train": False}}
    settings = model_settings(data, params)
    del settings["model"]["params"]["token_conditioners"]
    config = tiny.configuration(settings)
    model = AdapterModel.of(config)
    columns = {"digit": torch.eye(3)[:2]}
    one = predict(config, model, columns=columns)
    assert not torch.equal(one, predict(config, model, columns={"digit": torch.eye(3)[1:]}))


def test_gradient_checkpointing_changes_no_gradient(data: Path, tokenizer: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        parts = tiny.merged(everything(tokenizer), {"unet_config": {"gradient_checkpointing": checkpointing}})
        config = tiny.configuration(model_settings(data, parts))
        model = AdapterModel.of(config)
        latents = torch.ones(2, *model.latent_shape(8))
        model(latents, torch.tensor([3, 700]), conditions(config, model)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_weights_depend_on_the_seed_and_the_parts_name_alone(data: Path, tokenizer: Path) -> None:
    alone = AdapterModel.of(tiny.configuration(tiny.settings(data))).state_dict()
    together = AdapterModel.of(tiny.configuration(model_settings(data, everything(tokenizer)))).state_dict()
    assert all(torch.equal(value, together[name]) for name, value in alone.items())
    other = AdapterModel.of(tiny.configuration(tiny.settings(data, {"seed": 4}))).state_dict()
    assert not torch.equal(alone["unet.conv_in.weight"], other["unet.conv_in.weight"])


def test_a_frozen_part_stays_in_evaluation_mode(whole: tuple[TrainingConfig, AdapterModel]) -> None:
    _, model = whole
    model.train()
    assert model.unet.training
    assert not model.first_stage.training
    assert model.image_encoder is not None
    assert not model.image_encoder.encoder.training
    model.eval()


def test_a_pattern_without_a_layer_names_its_field(data: Path) -> None:
    params = {"adapters_config": {"digit": {"column": "digit", "layers": ["up_blocks.7"]}}}
    with pytest.raises(InvalidConfig) as caught:
        AdapterModel.of(tiny.configuration(model_settings(data, params)))
    assert "model.params.adapters_config.digit.layers[0]: 'up_blocks.7' matches no cross-attention" in str(caught.value)


def test_adapters_that_nothing_tells_apart_must_not_overlap(data: Path) -> None:
    adapter = {"column": "digit", "layers": ["up_blocks"]}
    params = {"adapters_config": {"one": adapter, "two": {**adapter, "layers": ["*"]}}}
    with pytest.raises(InvalidConfig, match=r"adapters_config.two.layers: overlaps 'one' in up_blocks.0.*'digit'"):
        AdapterModel.of(tiny.configuration(model_settings(data, params)))
    for change in ({"layers": ["mid_block"]}, {"column": "shape"}, {"projector": {"target": "MLP"}}):
        apart = {"adapters_config": {"one": adapter, "two": {**adapter, **change}}}
        assert len(AdapterModel.of(tiny.configuration(model_settings(data, apart))).adapters) == 2


def test_low_rank_weights_for_a_layer_that_is_not_there_name_the_field(data: Path) -> None:
    params = {"unet_config": {"train": False, "lora": {"target_modules": ["to_z"]}}}
    with pytest.raises(InvalidConfig, match=r"model.params.unet_config.lora: cannot be built: .*to_z"):
        AdapterModel.of(tiny.configuration(model_settings(data, params)))
