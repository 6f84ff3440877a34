"""A trained model becomes a base: diffusers and transformers load it, and what is trained on it begins with its weights."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from adapter_trainer.model import base_schedule
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.publishing import base_folder
from adapter_trainer.sampling import sample
from tests.trainer.support import runs, tiny
from tests.trainer.support.pipelines import drawn_by, pipeline_settings

pytestmark = pytest.mark.process

LORA = {"model": {"params": {"unet_config": {"lora": {"rank": 2}}}}, "optimization": {"learning_rate": 0.05}}


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "with low-rank weights"])
def test_a_whole_model_is_a_pipeline_that_draws_as_our_sampler_does(
    data: Path, tokenizer: Path, tmp_path: Path, changes: tiny.Settings
) -> None:
    settings = tiny.merged(pipeline_settings(data, tokenizer, {"look": {"projector": {"target": "Linear"}}}), changes)
    assert runs.train_here(settings, tmp_path / "output") == 0
    sampler = sample.load(tmp_path / "output" / "checkpoint-2")
    with torch.no_grad():
        for parameter in sampler.model.adapters.parameters():
            parameter.zero_()  # the pipeline has no adapter
    expected = sampler.draw([{"caption": "a cat"}], 1)
    written = base_folder.write(sampler, tmp_path / "base", "base")
    assert {"unet", "vae", "text_encoder", "text_encoder_2", "image_encoder", "scheduler"} <= set(written)
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "base", add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler(**sample.scheduler_settings(sampler.config, "DDIMScheduler"))
    drawn = drawn_by(pipeline, sampler, prompt="a cat")
    torch.testing.assert_close(drawn, expected, atol=2e-4, rtol=0)
    again = {
        "pretrained_model_name_or_path": str(tmp_path / "base"),
        "first_stage_config": {"target": "AutoencoderKL"},
    }
    readme = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert "pretrained_model_name_or_path: base" in readme
    shape = {"model": {"params": again}, "data": {"params": {"resolution": 16, "image_mode": "RGB"}}}
    begun = AdapterModel.of(tiny.configuration(tiny.settings(data, shape)))
    assert all(
        torch.equal(value, sampler.model.unet.state_dict()[name]) for name, value in begun.unet.state_dict().items()
    )


def test_a_model_on_pixels_says_how_it_is_named_and_gives_its_schedule_to_what_begins_from_it(
    data: Path, tmp_path: Path
) -> None:
    schedule = {"model": {"params": {"scheduler_config": {"params": {"prediction_type": "sample"}}}}}
    assert runs.train_here(tiny.settings(data, schedule), tmp_path / "output") == 0
    sampler = sample.load(tmp_path / "output" / "checkpoint-3")
    written = base_folder.write(sampler, tmp_path / "base", "my/base")
    assert written == ["unet", "scheduler", "label_to_token.safetensors"]
    readme = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    for line in ("unet_config: {pretrained: my/base, subfolder: unet}", "first_stage_config: {target: Pixels, patch_size: 1}",
                 "scheduler_config: {params: {prediction_type: sample}}"):  # fmt: skip
        assert line in readme
    source = {"pretrained": str(tmp_path / "base"), "subfolder": "unet", "train": False}
    given = {"model": {"params": {"unet_config": source}}}
    said: list[str] = []
    config = base_schedule.resolved(tiny.configuration(tiny.settings(data, given)), None, said.append)
    assert config.model.params.scheduler_config.params.prediction_type == "sample"
    assert any("prediction_type sample" in line for line in said)
