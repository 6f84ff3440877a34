"""What a sample becomes on its way to the loss is what diffusers' pipelines and training scripts make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from adapter_trainer.data.images import reference_image, scaled
from adapter_trainer.training import loop, setup
from tests.trainer.support import original_layout, tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    original_layout.write(folder)
    return folder


@pytest.fixture
def run(base: Path, data: Path, tmp_path: Path) -> loop.Training:
    params = {
        "pretrained_model_name_or_path": str(base),
        "first_stage_config": {"target": "AutoencoderKL"},
        "text_config": {"dropout": 0.0},
        "token_conditioners": {"label_to_token": None},
    }
    changes = {
        "model": {"params": params},
        "data": {"params": {"resolution": 16, "image_mode": "RGB", "cache": {"mode": "off"}}},
    }
    config = tiny.configuration(tiny.settings(data, changes))
    return setup.prepare(config, setup.RunOptions(tmp_path, show=lambda _: None))


def pipeline_of(base: Path) -> Any:
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(base / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        unet=UNet2DConditionModel.from_pretrained(base / "unet"),
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_diffusers_training_script(run: loop.Training, base: Path) -> None:
    """`examples/text_to_image/train_text_to_image_sdxl.py`, on the same pictures, noise and timesteps."""
    pipeline, batch = pipeline_of(base), next(run.batches)
    assert batch.images is not None
    ours = loop.losses_of(run.module, run.state.model, run.schedule, batch, run.nulls)
    posterior = pipeline.vae.encode(batch.images).latent_dist
    latents = (posterior.mean + posterior.std * batch.posterior_noise) * pipeline.vae.config.scaling_factor
    noisy = pipeline.scheduler.add_noise(latents, batch.noise, batch.timesteps)
    captions = [run.rows[index].caption for index in batch.indices.tolist()]
    states, _, pooled, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    conditions = {"text_embeds": pooled, "time_ids": batch.time_ids}
    prediction = pipeline.unet(noisy, batch.timesteps, states, added_cond_kwargs=conditions).sample
    theirs = torch.nn.functional.mse_loss(prediction, batch.noise, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_captions_are_encoded_as_by_the_pipeline(run: loop.Training, base: Path) -> None:
    captions, model = ["a cat", "", "a longer caption of words that are cut"], run.state.model
    assert model.tokenizers is not None
    assert model.text_encoders is not None
    states, pooled = model.text_encoders(model.tokenizers(captions))
    expected, _, expected_pooled, _ = pipeline_of(base).encode_prompt(captions, do_classifier_free_guidance=False)
    torch.testing.assert_close(states, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-6, atol=1e-7)


def picture(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_pixels_are_scaled_as_by_diffusers() -> None:
    """Each of the 256 values, whatever way they are computed, is within one bit of the last place."""
    image = picture(64)
    theirs = VaeImageProcessor(do_resize=False).preprocess(image)[0].numpy()
    np.testing.assert_array_almost_equal_nulp(scaled(np.asarray(image)) + 2, theirs + 2, nulp=1)


def test_a_picture_of_the_encoders_size_is_normalised_as_by_clip() -> None:
    image = picture(224)
    theirs = CLIPImageProcessorPil()(image, return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(reference_image(image, 224), theirs, rtol=0, atol=1e-6)
