"""A base in a single file of the original layout is the base that diffusers has in a folder."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from adapter_api.model import ModelParams
from adapter_api.networks import ImageEncoderConfig, UNetConfig, UNetParams
from adapter_api.sources import staged_name, stored_models, with_pipeline_sources
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import base_schedule, single_file
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.original_names import original_name
from adapter_trainer.model.sources import with_local_models
from tests.trainer.support import original_layout, runs, tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    original_layout.write(folder)
    return folder


def settings(base: Path | str, bases: Path, data: Path | str = "/data", **optimization: Any) -> tiny.Settings:
    encoders = [
        {"tokenizer": str(bases / "tokenizer")}, {"target": "CLIPTextModelWithProjection",
                                                  "tokenizer": str(bases / "tokenizer_2")},
    ]  # fmt: skip
    params = {
        "pretrained_model_name_or_path": str(base),
        "unet_config": {"train": False, "params": original_layout.UNET},
        "first_stage_config": {"target": "AutoencoderKL", "params": original_layout.VAE},
        "text_config": {"encoders": encoders},
    }
    changes = {
        "model": {"params": params},
        "data": {"params": {"resolution": 16, "image_mode": "RGB"}},
        "optimization": optimization,
    }
    return tiny.settings(data, changes)


def parts_of(model: AdapterModel) -> dict[str, torch.nn.Module]:
    assert model.text_encoders is not None
    first, second = model.text_encoders.encoders
    return {"unet": model.unet, "vae": model.first_stage, "text_encoder": first, "text_encoder_2": second}


def test_every_weight_is_that_of_the_folder_in_the_precision_it_is_computed_in(bases: Path) -> None:
    models = [
        AdapterModel.of(tiny.configuration(settings(base, bases, mixed_precision="bf16")))
        for base in (bases, bases / "base.safetensors")
    ]
    theirs, ours = (parts_of(model) for model in models)
    for name, part in theirs.items():
        state = ours[name].state_dict()
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items()), name
        assert {value.dtype for value in state.values()} == {value.dtype for value in part.state_dict().values()}
    assert "unet" not in models[1].saved_parts()


@pytest.mark.process
def test_a_run_on_the_file_has_the_losses_of_a_run_on_the_folder(bases: Path, data: Path, tmp_path: Path) -> None:
    for name, base in {"folder": bases, "file": bases / "base.safetensors"}.items():
        assert runs.train_here(settings(base, bases, data), tmp_path / name) == 0
    assert runs.losses(tmp_path / "file") == runs.losses(tmp_path / "folder")


@pytest.mark.parametrize(
    ("tensors", "metadata", "prediction", "zero"),
    [
        (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ((), {}, None, False),
    ],
)
def test_what_a_file_says_of_its_prediction_is_read(
    bases: Path,
    tmp_path: Path,
    tensors: tuple[str, ...],
    metadata: dict[str, str],
    prediction: str | None,
    *,
    zero: bool,
) -> None:
    file = tmp_path / "base.safetensors"
    marks = {name: torch.zeros(0) for name in tensors}
    save_file({**load_file(bases / "base.safetensors"), **marks}, file, metadata)
    said: list[str] = []
    given = tiny.configuration(settings(file, bases))
    found = base_schedule.resolved(given, None, said.append).model.params.scheduler_config.params.filled
    assert found.prediction_type == (prediction or "epsilon")
    assert found.rescale_betas_zero_snr == zero
    if prediction is None:
        assert said == [
            (f"model.params.scheduler_config.params.prediction_type: {file} does not say what it predicts; epsilon is assumed, "
            "as for SDXL")
        ]  # fmt: skip
        other = tiny.merged(
            settings(file, bases),
            {"model": {"params": {"scheduler_config": {"params": {"prediction_type": "v_prediction"}}}}},
        )
        found = base_schedule.resolved(
            tiny.configuration(other), None, said.append
        ).model.params.scheduler_config.params.filled
        assert (found.prediction_type, len(said)) == ("v_prediction", 1)


def test_a_base_of_another_kind_is_refused(bases: Path, tmp_path: Path) -> None:
    save_file({"edm_mean": torch.zeros(4)}, tmp_path / "edm.safetensors")
    with pytest.raises(InvalidConfig, match="gives noise in another way than SDXL's betas"):
        base_schedule.resolved(tiny.configuration(settings(tmp_path / "edm.safetensors", bases)), None, print)


@pytest.mark.parametrize("content", [b"no safetensors", None], ids=["bytes", "other weights"])
def test_a_file_that_holds_something_else_names_field_and_file(
    bases: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "base.safetensors"
    if content is None:
        save_file({"lora_unet.weight": torch.zeros(1)}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"model\.params\.\w+: .*base\.safetensors (cannot be read|does not hold)"):
        AdapterModel.of(tiny.configuration(settings(file, bases)))


def test_another_shape_than_the_configurations_is_refused(bases: Path) -> None:
    wide = tiny.merged(
        settings(bases / "base.safetensors", bases),
        {"model": {"params": {"unet_config": {"params": {"block_out_channels": [16, 16]}}}}},
    )
    with pytest.raises(InvalidConfig, match=r"unet_config: .* of the shape that `params` give: .*"):
        AdapterModel.of(tiny.configuration(wide))


def test_a_file_that_is_nowhere_says_how_to_name_one() -> None:
    for name in ("/absent/base.safetensors", "./base.safetensors", "owner/base.safetensors"):
        with pytest.raises(InvalidConfig, match=f"unet: there is no file {name}; correct the path, or name owner/"):
            single_file.path_of(UNetConfig(pretrained=name), "unet")


def test_a_file_on_the_hub_is_asked_for_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(repository: str, inside: str, *, revision: str | None) -> str:
        asked.append((repository, inside, revision))
        return "/cache/base.safetensors"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = UNetConfig(pretrained="owner/name/folder/base.safetensors", revision="abc")
    assert single_file.path_of(source, "unet") == Path("/cache/base.safetensors")
    assert asked == [("owner/name", "folder/base.safetensors", "abc")]


def test_an_image_encoder_is_in_no_single_file(bases: Path) -> None:
    source = ImageEncoderConfig(pretrained=str(bases / "base.safetensors"))
    with pytest.raises(InvalidConfig, match="is a single file, which holds no CLIPVisionModelWithProjection"):
        single_file.load(type("CLIPVisionModelWithProjection", (), {}), source, "image", torch.float32)


def test_tokenizers_of_a_single_file_are_sdxls_unless_named() -> None:
    params = ModelParams.model_validate({"pretrained_model_name_or_path": "/models/base.safetensors"})
    found = [(each.tokenizer, each.tokenizer_subfolder) for each in with_pipeline_sources(params).text_config.encoders]
    name = "stabilityai/stable-diffusion-xl-base-1.0"
    assert found == [(name, "tokenizer"), (name, "tokenizer_2")]


def test_a_file_in_object_storage_is_staged_once_under_its_own_name(bases: Path, tmp_path: Path) -> None:
    uri = "s3://models/fine-tunes/base.safetensors"
    config = tiny.configuration(settings(uri, bases))
    assert {(each.uri, each.holds) for each in stored_models(config.model.params)} == {(uri, "weights")}
    (tmp_path / staged_name(uri)).mkdir()
    local = with_local_models(config, tmp_path).model.params.pretrained_model_name_or_path
    assert local == str(tmp_path / staged_name(uri) / "base.safetensors")


def test_a_file_with_every_name_of_sdxls_unet_is_read(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64, 96), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (1, 2, 3), "cross_attention_dim": 8,
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64, "use_linear_projection": True,
    }  # fmt: skip
    unet = UNet2DConditionModel(**shape, addition_embed_type="text_time", sample_size=8)
    weights = {}
    for name, value in unet.state_dict().items():
        module, _, kind = name.rpartition(".")
        renamed = original_name(module, [2, 2, 2], ["CrossAttn" in each for each in shape["up_block_types"]])
        weights[f"model.diffusion_model.{renamed}.{kind}"] = value.clone()
    # As many, and the deepest, that sd_xl_base_1.0.safetensors has.
    assert len(weights) == 1680
    assert "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight" in weights
    assert "model.diffusion_model.output_blocks.5.2.conv.weight" in weights
    assert "model.diffusion_model.label_emb.0.2.weight" in weights
    save_file(weights, tmp_path / "base.safetensors")
    config = UNetConfig(pretrained=str(tmp_path / "base.safetensors"), params=UNetParams.model_validate(shape))
    loaded = single_file.load(UNet2DConditionModel, config, "unet_config", torch.float32)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in unet.state_dict().items())
