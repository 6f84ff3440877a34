"""Parts that do not fit each other are refused before the first step, each with the field to change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from adapter_api.networks import FirstStageParams
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import fit
from adapter_trainer.model.adapter_model import AdapterModel
from tests.trainer.support import tiny
from tests.trainer.support.encoded import STAGE
from tests.trainer.support.runs import outcome, train_here

BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}


def saved_unet(folder: Path, **shape: Any) -> str:
    torch.manual_seed(0)
    given = {**tiny.UNET, "addition_embed_type": "text_time", "in_channels": 2, "out_channels": 2, **shape}
    UNet2DConditionModel(**given).save_pretrained(folder / "unet")
    return str(folder / "unet")


def saved_stage(folder: Path, **shape: Any) -> str:
    torch.manual_seed(0)
    AutoencoderKL(**{**STAGE["params"], **BLOCKS, **shape}).save_pretrained(folder / "vae")
    return str(folder / "vae")


def refusal(stage: tiny.Settings, unet: str, **params: Any) -> str:
    """Why a model with this first stage and UNet is not built; empty if it is."""
    model = {"first_stage_config": {"target": "AutoencoderKL", **stage}, "unet_config": {"pretrained": unet}, **params}
    settings = tiny.settings(changes={"model": {"params": model}, "data": {"params": {"resolution": 16}}})
    settings["model"]["params"]["unet_config"].pop("params")
    try:
        AdapterModel.of(tiny.configuration(settings))
    except InvalidConfig as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("unet", "stage", "message"),
    [
        pytest.param({}, {}, "", id="fitting"),
        pytest.param(
            {"in_channels": 4, "out_channels": 4},
            {},
            "model.params.unet_config: takes 4 channels, the first stage gives 2; name a UNet and a first stage that",
            id="other latents",
        ),
        pytest.param(
            {"out_channels": 4},
            {},
            "model.params.unet_config: gives 4 channels, the first stage has 2; name a UNet and a first stage that",
            id="a UNet that predicts variances",
        ),
        pytest.param(
            {},
            {"in_channels": 3},
            "model.params.first_stage_config: takes pictures of 3 channels, data.params.image_mode L has 1; change",
            id="pictures of other channels",
        ),
        pytest.param(
            {},
            {"latents_mean": [0.0, 0.0], "latents_std": [1.0, 1.0]},
            "model.params.first_stage_config: {vae} shifts and scales each channel of its latents by itself",
            id="normalised channels",
        ),
    ],
)
def test_a_first_stage_and_a_unet_have_to_fit(
    tmp_path: Path, unet: tiny.Settings, stage: tiny.Settings, message: str
) -> None:
    folder = saved_stage(tmp_path, **stage)
    said = refusal({"pretrained": folder}, saved_unet(tmp_path, **unet))
    assert said.startswith(message.format(vae=folder))
    assert bool(said) == bool(message)


def test_what_a_configuration_says_of_a_loaded_first_stage_has_to_be_so(tmp_path: Path) -> None:
    folder, unet = saved_stage(tmp_path), saved_unet(tmp_path)
    true = {"scaling_factor": 0.5, "block_out_channels": [4, 4], "norm_num_groups": 2, "force_upcast": False}
    assert refusal({"pretrained": folder, "params": true}, unet) == ""
    said = refusal({"pretrained": folder, "params": {"scaling_factor": 0.18215}}, unet)
    assert said.startswith(
        f"model.params.first_stage_config.params.scaling_factor: is 0.18215, but {folder} has 0.5; remove it"
    )
    assert refusal({"pretrained": folder, "params": FirstStageParams().model_dump(mode="json")}, unet) == ""


def test_sdxls_unet_is_not_trained_on_latents_of_another_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SDXL_SHAPE", {"cross_attention_dim": 16, "addition_embed_type": "text_time"})
    folder, unet = saved_stage(tmp_path), saved_unet(tmp_path)
    said = refusal({"pretrained": folder}, unet)
    assert said.startswith(
        f"model.params.first_stage_config: {folder} multiplies latents by 0.5, SDXL's UNets were trained on 0.13025; name"
    )
    assert refusal({"pretrained": folder, "params": {"scaling_factor": 0.5}}, unet) == ""
    saved_stage(tmp_path, scaling_factor=0.13025)
    assert refusal({"pretrained": folder}, unet) == ""


def test_a_pooled_text_that_the_unet_does_not_take_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    encoder = tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")
    text = {"text_config": {"encoders": [encoder]}}
    said = refusal(STAGE, saved_unet(tmp_path, projection_class_embeddings_input_dim=48 + 20), **text)
    assert said.startswith(
        "model.params.text_config.encoders: the last one's pooled embedding has 16 numbers, the UNet takes 20 in addition to its "
    )
    assert refusal(STAGE, saved_unet(tmp_path, projection_class_embeddings_input_dim=48 + 16), **text) == ""


@pytest.mark.process
def test_a_first_stage_that_overflows_float16_is_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    stage = AutoencoderKL(**STAGE["params"], **BLOCKS)
    with torch.no_grad():
        stage.quant_conv.bias.fill_(1e6)
    stage.half().save_pretrained(tmp_path / "vae")
    loaded = {"target": "AutoencoderKL", "pretrained": str(tmp_path / "vae"), "params": {"force_upcast": False}}
    shape = {"params": {"in_channels": 2, "out_channels": 2}}
    changes = {
        "model": {"params": {"first_stage_config": loaded, "unet_config": shape}},
        "data": {"params": {"resolution": 16}},
        "optimization": {"mixed_precision": "fp16"},
    }
    assert train_here(tiny.settings(data, changes), tmp_path / "output") == 2
    assert "this autoencoder overflows float16; set it to true" in outcome(tmp_path / "output").message


@pytest.mark.process
def test_a_checkpoint_of_another_configuration_is_refused_and_stays(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert train_here(tiny.settings(data), output) == 0
    before = {path: path.read_bytes() for path in (output / "checkpoint-3").rglob("*") if path.is_file()}
    wider = {"model": {"params": {"token_conditioners": {"label_to_token": {"params": {"num_tokens": 3}}}}}}
    given = tiny.settings(data, {**wider, "optimization": {"max_train_steps": 5}})
    assert train_here(given, output, "--resume_from_checkpoint", "latest") == 2
    ended = outcome(output)
    assert ended.reason == "IncompatibleCheckpoint"
    assert "model.params.token_conditioners.label_to_token.params.num_tokens" in ended.message
    other = tmp_path / "other"
    assert train_here(given, other, "--resume_from_checkpoint", str(output / "checkpoint-3")) == 2
    assert outcome(other).reason == "IncompatibleCheckpoint"
    assert before == {path: path.read_bytes() for path in (output / "checkpoint-3").rglob("*") if path.is_file()}


@pytest.mark.process
def test_an_embedding_of_another_length_that_nobody_checked_names_its_line(tmp_path: Path) -> None:
    mine = tiny.write_data(tmp_path / "data", samples=4)
    for index in range(4):
        np.save(mine / f"{index}.npy", np.ones(5 if index < 3 else 6, np.float32))
    lines = [f"{index}.png\ta caption\t{index}.npy\n" for index in range(4)]
    (mine / "train.txt").write_text("".join(lines), encoding="utf-8")
    tokens = {"embed_to_token": {"params": {"num_tokens": 1}}, "label_to_token": None}
    changes = {
        "model": {"params": {"token_conditioners": tokens}},
        "data": {"params": {"columns": [{"name": "face", "kind": "embedding"}], "verify": "none"}},
    }
    assert train_here(tiny.settings(mine, changes), tmp_path / "output") == 2
    ended = outcome(tmp_path / "output")
    assert (ended.reason, ended.message) == ("InvalidData", "line 4: face: 3.npy has 6 numbers, not 5")


@pytest.mark.process
def test_captions_that_are_cut_are_told_once(
    data: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")
    model = {
        "text_config": {"encoders": [encoder]},
        "unet_config": {"params": {"projection_class_embeddings_input_dim": 48 + 16}},
    }
    given = tiny.settings(data, {"model": {"params": model}, "optimization": {"max_train_steps": 1}})
    assert train_here(given, tmp_path / "output") == 0
    told = "train.txt: 11 of 11 captions are longer than the 12 tokens that the text encoder reads, and are cut there; "
    assert capsys.readouterr().out.count(f"{told}the first is on line 1") == 1
