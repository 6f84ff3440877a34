"""Checkpoints hold files that pipelines load: real diffusers pipelines draw from them what our sampler draws."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from adapter_api.conditions import ProjectorParams
from adapter_api.networks import UNetParams
from adapter_trainer.conditioners import load
from adapter_trainer.data.images import reference_image
from adapter_trainer.data.opening import open_picture
from adapter_trainer.errors import InvalidData
from adapter_trainer.model import ip_adapter_file, weights
from adapter_trainer.model.adapters import Adapter
from adapter_trainer.model.projectors import PROJECTORS, ConditionTokens, PerceiverResampler
from adapter_trainer.publishing.card import ExportRecord, card_of
from adapter_trainer.sampling import sample
from adapter_trainer.sampling.sample import Sampler
from adapter_trainer.training import setup
from atj.main import app
from tests.trainer.support import runs, tiny
from tests.trainer.support.pipelines import drawn_by, pipeline_of, pipeline_settings
from tests.trainer.support.tiny import Settings

LAYOUTS: dict[str, Settings] = {
    "base": {"projector": {"target": "Linear"}},
    "Plus": {"projector": {"target": "PerceiverResampler", "params": {"num_tokens": 5, "hidden_dim": 128}}},
    "full": {"projector": {"target": "SequenceMLP"}},
    "FaceID": {
        "column": "shape",
        "projector": {"target": "MLP", "params": {"num_tokens": 3}},
        "null_condition": "encoded",
    },
}


def features_of(sampler: Sampler, picture: Path, *, sequence: bool) -> Tensor:
    """What pipelines encode of a reference and of none: negative and positive, [2, 1, ...]."""
    encoder = sampler.model.image_encoder
    assert encoder is not None
    pixels = torch.from_numpy(reference_image(open_picture(picture), encoder.image_size))[None]
    with torch.no_grad():
        positive = encoder(pixels, sequence=sequence)
        negative = encoder(torch.zeros_like(pixels), sequence=True) if sequence else torch.zeros_like(positive)
    return torch.stack([negative, positive])


@pytest.mark.process
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ema", [False, True], ids=["last", "averaged"])
def test_a_pipeline_draws_with_the_exported_adapter_what_our_sampler_draws(
    data: Path, tokenizer: Path, tmp_path: Path, layout: str, *, ema: bool
) -> None:
    average = {"optimization": {"ema": {"decay": 0.5, "warmup": False}}} if ema else {}
    adapters = {"look": {"layers": ["up_blocks", "mid_block"], **LAYOUTS[layout]}}
    assert runs.train_here(pipeline_settings(data, tokenizer, adapters, average), tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-2"
    sampler = sample.load(folder)
    pipeline, picture, vector = pipeline_of(sampler), data / "3.png", (0.5, -1.0, 2.0, 0.1, 0.3)
    inputs: Settings = {"prompt": "a cat"}
    if layout == "FaceID":
        row: dict[str, Any] = {"caption": "a cat", "shape": vector}
        inputs["ip_adapter_image_embeds"] = [torch.stack([torch.zeros(1, 5), torch.tensor([vector])])]
    else:
        row = {"caption": "a cat", "image": str(picture)}
        inputs["ip_adapter_image_embeds"] = [features_of(sampler, picture, sequence=layout != "base")]
    without = drawn_by(pipeline, sampler, prompt="a cat")
    pipeline.load_ip_adapter(str(folder), subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None)
    ours = sampler.draw([row], 1)
    torch.testing.assert_close(drawn_by(pipeline, sampler, **inputs), ours, atol=2e-4, rtol=0)
    assert (without - ours).abs().max() > 0.01
    assert ip_adapter_file.layout_of(sampler.model.adapters["look"].tokens.projector) == layout  # type: ignore[union-attr,arg-type]


@pytest.mark.process
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_weights_stored_in_16_bits_are_drawn_in_the_precision_that_they_were_trained_in(
    data: Path, tokenizer: Path, tmp_path: Path, precision: str
) -> None:
    chosen = {"optimization": {"mixed_precision": precision}}
    given = pipeline_settings(data, tokenizer, {"picture": LAYOUTS["base"]}, chosen)
    assert runs.train_here(given, tmp_path / "whole") == 0
    pipeline = pipeline_of(sample.load(tmp_path / "whole" / "checkpoint-2", device="cpu"))
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path / "pipeline")
    params = given["model"]["params"]
    for name in ("unet_config", "first_stage_config", "text_config"):
        params.pop(name)
    params |= {"pretrained_model_name_or_path": str(tmp_path / "pipeline"), "unet_config": {"train": False}}
    assert runs.train_here(given, tmp_path / "output") == 0
    sampler = sample.load(tmp_path / "output" / "checkpoint-2", device="cpu")
    assert sampler.draw([{"caption": "a picture", "image": str(data / "0.png")}], 1).isfinite().all()
    half = precision == "bf16" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert {each.dtype for each in sampler.model.unet.parameters()} == {torch.bfloat16 if half else torch.float32}
    assert sampler.model.first_stage.dtype == torch.float32


@pytest.mark.process
def test_several_adapters_have_a_file_each_and_draw_together(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    adapters = {"look": {"scale": 0.7, **LAYOUTS["base"]}, "id": LAYOUTS["FaceID"]}
    assert runs.train_here(pipeline_settings(data, tokenizer, adapters), tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-2"
    sampler = sample.load(folder)
    pipeline, vector = pipeline_of(sampler), (0.5, -1.0, 2.0, 0.1, 0.3)
    names = ["ip_adapter-look.safetensors", "ip_adapter-id.safetensors"]
    pipeline.load_ip_adapter([str(folder)] * 2, subfolder=["", ""], weight_name=names, image_encoder_folder=None)
    pipeline.set_ip_adapter_scale([0.7, 1.0])
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert {each["name"]: each["diffusers"] for each in record["adapters"]} == {
        "look": "loads, with pipe.set_ip_adapter_scale(0.7)", "id": "loads",
    }  # fmt: skip
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"weight_name={names[::-1]}" in card
    assert "pipe.set_ip_adapter_scale([1.0, 0.7])" in card
    assert "One call for each reference" in card
    shape = torch.stack([torch.zeros(1, 5), torch.tensor([vector])])
    theirs = drawn_by(
        pipeline, sampler, prompt="a cat",
        ip_adapter_image_embeds=[features_of(sampler, data / "3.png", sequence=False), shape],
    )  # fmt: skip
    ours = sampler.draw([{"caption": "a cat", "image": str(data / "3.png"), "shape": vector}], 1)
    torch.testing.assert_close(theirs, ours, atol=2e-4, rtol=0)


@pytest.mark.process
@pytest.mark.parametrize("null_text", ["zeros", "encoded"])
def test_token_conditioners_give_a_pipeline_its_prompt_embeds(
    data: Path, tokenizer: Path, tmp_path: Path, null_text: str
) -> None:
    tokens = {"label_to_token": {"params": {"num_tokens": 2}}, "embed_to_token": {"column": "shape"}}
    changes = {"model": {"params": {"token_conditioners": tokens, "text_config": {"null_condition": null_text}}},
               "optimization": {"ema": {"decay": 0.5, "warmup": False}}}  # fmt: skip
    given = pipeline_settings(data, tokenizer, {"look": LAYOUTS["base"]}, changes)
    assert runs.train_here(given, tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-2"
    sampler = sample.load(folder)
    pipeline, vector = pipeline_of(sampler), (0.5, -1.0, 2.0, 0.1, 0.3)
    pipeline.load_ip_adapter(str(folder), subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None)
    conditioners = load(folder)
    values = {"digit": torch.eye(3)[1:2], "shape": torch.tensor([vector])}
    inputs = conditioners.prompt_embeds(pipeline, ["a cat"], values)
    inputs["ip_adapter_image_embeds"] = [features_of(sampler, data / "3.png", sequence=False)]  # type: ignore[assignment]
    ours = sampler.draw([{"caption": "a cat", "digit": 1, "shape": vector, "image": str(data / "3.png")}], 1)
    torch.testing.assert_close(drawn_by(pipeline, sampler, **inputs), ours, atol=2e-4, rtol=0)
    exported = tmp_path / "exported"
    assert CliRunner().invoke(app, ["export", str(folder), "--to", str(exported)]).exit_code == 0
    assert not (exported / "optimizer.safetensors").exists()
    again = load(exported).prompt_embeds(pipeline, ["a cat"], values)
    assert all(torch.equal(again[name], inputs[name]) for name in again)
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert 'prompt_embeds(pipe, ["a caption"], {"digit": digit, "shape": shape})' in card
    with pytest.raises(InvalidData, match="there is no column 'colour'; they are: digit, shape"):
        conditioners.prompt_embeds(pipeline, ["a cat"], {"colour": torch.eye(3)[:1]})
    with pytest.raises(InvalidData, match=r"digit: has the shape \(1, 4\), not \(1, 3\)"):
        conditioners.prompt_embeds(pipeline, ["a cat"], {"digit": torch.eye(4)[:1]})


@pytest.mark.process
@pytest.mark.parametrize("ema", [False, True], ids=["last", "averaged"])
def test_a_pipeline_draws_with_the_exported_lora_what_our_sampler_draws(
    data: Path, tokenizer: Path, tmp_path: Path, *, ema: bool
) -> None:
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
    lora = {"rank": 3, "alpha": 4.5, "learning_rate": 0.2, "target_modules": targets}
    changes: Settings = {"model": {"params": {"unet_config": {"lora": lora}, "adapters_config": {},
                                              "token_conditioners": {"label_to_token": None}}}}  # fmt: skip
    if ema:
        changes["optimization"] = {"ema": {"decay": 0.5, "warmup": False}}
    assert runs.train_here(pipeline_settings(data, tokenizer, {}, changes), tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-2"
    sampler = sample.load(folder)
    pipeline = pipeline_of(sampler)
    without = drawn_by(pipeline, sampler, prompt="a cat")
    ours = sampler.draw([{"caption": "a cat"}], 1)
    assert (without - ours).abs().max() > 0.01
    for file in ("pytorch_lora_weights.safetensors", "kohya_lora_weights.safetensors"):
        pipeline.load_lora_weights(str(folder), weight_name=file)
        torch.testing.assert_close(drawn_by(pipeline, sampler, prompt="a cat"), ours, atol=2e-4, rtol=0)
        pipeline.unload_lora_weights()
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert (record["lora"], record["lora_kohya"]) == (
        "pytorch_lora_weights.safetensors",
        "kohya_lora_weights.safetensors",
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "tags: [stable-diffusion-xl, lora, adapter-training-operator]" in card


@pytest.mark.process
def test_no_weight_is_stored_twice_and_a_resumed_run_has_the_same_ones(
    data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    average = {"optimization": {"ema": {"decay": 0.5, "warmup": False}}}
    for name, changes in {"last": {}, "averaged": average}.items():
        given = pipeline_settings(data, tokenizer, {"look": LAYOUTS["Plus"]}, changes)
        assert runs.train_here(given, tmp_path / name) == 0
        folder = tmp_path / name / "checkpoint-2"
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
        assert ("model/adapter-look.safetensors" in files) == (name == "averaged")
        assert "ema.safetensors" not in files
        run = setup.prepare(tiny.configuration(given), setup.RunOptions(tmp_path / name, "latest", lambda _: None))
        again = weights.files_of(run.state.model, run.state.averages())
        for file, tensors in again.items():
            stored = load_file(folder / f"{file}.safetensors")
            assert stored.keys() == tensors.keys()
            assert all(torch.equal(value, stored[key]) for key, value in tensors.items()), file


def adapter_of(projector: str, width: int, **params: Any) -> Adapter:
    shape = ProjectorParams.model_validate(params)
    return Adapter(ConditionTokens(PROJECTORS[projector](width, 2048, shape), 2048, "encoded"), {}, 1.0)


@pytest.mark.parametrize(
    ("projector", "width", "params", "diffusers", "comfyui"),
    [
        pytest.param("Linear", 1280, {}, None, None, id="base"),
        pytest.param("Linear", 1280, {"num_tokens": 8}, "num_tokens is 8; a Linear", "num_tokens is 8", id="eight tokens"),
        pytest.param("PerceiverResampler", 1280, {"num_tokens": 16, "hidden_dim": 1280, "heads": 20}, None, None, id="Plus"),
        pytest.param("PerceiverResampler", 64, {"num_tokens": 16}, None, "hidden_dim is 64; it expects 1280", id="narrow"),
        pytest.param("PerceiverResampler", 1280, {"num_tokens": 7}, None, "num_tokens is 7; it expects 16", id="seven"),
        pytest.param("PerceiverResampler", 64, {"depth": 6}, "depth is 6; a resampler loads with 4", "depth", id="deep"),
        pytest.param("PerceiverResampler", 64, {"heads": 2}, "heads is 2 for a hidden_dim of 64", "heads is 2", id="heads"),
        pytest.param("SequenceMLP", 1280, {"num_tokens": 257}, None, "tokens 1280 wide, and this one's are 2048", id="full"),
        pytest.param("SequenceMLP", 64, {"hidden_dim": 128}, "hidden_dim is 128; a Sequence", "hidden_dim", id="wide"),
        pytest.param("MLP", 512, {}, None, "is taken for FaceID", id="FaceID"),
        pytest.param("MLP", 512, {"hidden_dim": 600}, "is a multiple of the input's width, 512", "600", id="uneven"),
    ],
)  # fmt: skip
def test_layouts_that_would_load_wrongly_say_why(
    projector: str, width: int, params: Settings, diffusers: str | None, comfyui: str | None
) -> None:
    adapter = adapter_of(projector, width, **params)
    for found, expected in (
        (ip_adapter_file.diffusers_obstacle(adapter), diffusers), (ip_adapter_file.comfyui_obstacle(adapter, 2048), comfyui),
    ):  # fmt: skip
        assert (found is None) if expected is None else (found is not None and expected in found)


class Unheard(PerceiverResampler):
    """A kind of projector that no loader was looked through for."""


def test_what_is_not_known_is_not_known_to_load() -> None:
    projector = Unheard(64, 2048, ProjectorParams.model_validate({"num_tokens": 16}))
    adapter = Adapter(ConditionTokens(projector, 2048, "encoded"), {}, 1.0)
    assert ip_adapter_file.layout_of(projector) == "unknown"
    assert ip_adapter_file.diffusers_obstacle(adapter) == "a projector of kind Unheard is not known to load"
    assert ip_adapter_file.comfyui_obstacle(adapter, 2048) == "a projector of kind Unheard is not known to load"


def test_another_unet_than_sdxls_is_not_for_comfyui() -> None:
    assert (
        ip_adapter_file.comfyui_obstacle(adapter_of("Linear", 1280), 768)
        == "the UNet's cross_attention_dim is 768; SDXL's is 2048"
    )


def test_sdxls_layers_are_numbered_as_published_files_number_them() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNetParams(sample_size=128).model_dump())
    layers = ip_adapter_file.layers_of(unet)
    assert [layer.number for layer in layers] == list(range(1, 140, 2))
    blocks = {layer.number: layer.name.split(".attentions")[0] for layer in layers}
    assert [blocks[number] for number in (1, 7, 9, 47, 49, 107, 109, 119, 121, 139)] == [
        "down_blocks.1", "down_blocks.1", "down_blocks.2", "down_blocks.2", "up_blocks.0", "up_blocks.0",
        "up_blocks.1", "up_blocks.1", "mid_block", "mid_block",
    ]  # fmt: skip
    narrow = {layer.number for layer in layers if layer.width == 640}
    assert narrow == {*range(1, 8, 2), *range(109, 120, 2)}
    assert {layer.width for layer in layers} == {640, 1280}
    assert {layer.context for layer in layers} == {2048}
    style = {layer.number for layer in layers if layer.name.startswith("up_blocks.0.attentions.1.")}
    assert style == set(range(69, 88, 2))


@pytest.mark.process
def test_a_checkpoint_says_what_loads_it_and_where_it_comes_from(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    odd = {"projector": {"target": "Linear", "params": {"num_tokens": 8}}}
    adapters = {"look": LAYOUTS["base"], "odd": {"column": "shape", "null_condition": "learned", **odd}}
    assert runs.train_here(pipeline_settings(data, tokenizer, adapters), tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-2"
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert [each["file"] for each in record["adapters"]] == ["ip_adapter-look.safetensors", None]
    assert record["adapters"][1]["diffusers"] == "projector.params.num_tokens is 8; a Linear projector has 4"
    assert record["weights"] == "last"
    assert record["data"]["sha256"] == hashlib.sha256((data / "train.txt").read_bytes()).hexdigest()
    assert record["data"]["samples"] == tiny.SAMPLES
    assert "torch" in record["versions"]
    assert record["pipeline"] == "draws"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert 'weight_name="ip_adapter-look.safetensors"' in text
    assert "no file for pipelines" in text
    assert "library_name: diffusers" in text
    assert "tags: [stable-diffusion-xl, ip-adapter, adapter-training-operator]" in text
    assert "base_model" not in text
    assert (folder / "model" / "adapter-odd.safetensors").is_file()


@pytest.mark.process
def test_a_model_without_a_pipeline_says_so_and_shows_no_recipe_for_one(data: Path, tmp_path: Path) -> None:
    changes = {
        "model": {"params": {"adapters_config": {"look": {"column": "shape", "projector": {"target": "Linear"}}}}}
    }
    assert runs.train_here(tiny.settings(data, changes), tmp_path / "output") == 0
    folder = tmp_path / "output" / "checkpoint-3"
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["pipeline"] == "the model works on pixels, a pipeline on an autoencoder's latents"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"No diffusers pipeline draws with this model: {record['pipeline']}. `atj sample` does." in text
    assert "pipe" not in text.replace("pipeline", "")
    assert "`ip_adapter.safetensors`" in text


@pytest.mark.parametrize(
    ("base", "shown"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", True),
        ("/models/sdxl", False),
        ("s3://models/sdxl", False),
        ("a/b/c", False),
    ],
)
def test_a_card_names_a_base_that_hubs_can_know(base: str, *, shown: bool) -> None:
    record = ExportRecord(
        step=1, weights="last", base_model=base, prediction_type="epsilon", seed=0, data=None, versions={}, adapters=(),
        token_conditioners=(), token_columns={}, lora=None, lora_kohya=None,
    )  # fmt: skip
    assert ("base_model: " in card_of(record)) == shown
