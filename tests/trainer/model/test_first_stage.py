"""First stages turn images into latents and back, and an autoencoder trains a UNet through the same path as pixels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from adapter_api.networks import FirstStageConfig
from adapter_trainer.model.first_stage import Autoencoder, first_stage
from tests.trainer.support import tiny
from tests.trainer.support.encoded import STAGE
from tests.trainer.support.runs import train_here


@pytest.fixture
def autoencoder() -> Any:
    return first_stage(FirstStageConfig.model_validate(STAGE), channels=1, seed=0)


def test_pixels_are_their_own_latents() -> None:
    stage = first_stage(FirstStageConfig(target="Pixels"), channels=3, seed=0)
    images = torch.randn(2, 3, 8, 8)
    assert stage.encode(images, torch.randn(2, 3, 8, 8)) is images
    assert float(stage.decode(images * 9).abs().max()) == 1


def test_patches_of_pixels_become_channels_and_pixels_again() -> None:
    stage = first_stage(FirstStageConfig(target="Pixels", patch_size=2), channels=3, seed=0)
    images = torch.rand(2, 3, 8, 4) * 2 - 1
    latents = stage.encode(images, torch.randn(2, 12, 4, 2))
    assert (stage.channels, stage.factor, tuple(latents.shape)) == (12, 2, (2, 12, 4, 2))
    torch.testing.assert_close(latents[:, 4:8, 1, 0], images[:, 1, 2:4, 0:2].flatten(1))
    assert torch.equal(stage.decode(latents), images)
    assert float(stage.decode(latents * 9).abs().max()) == 1


def test_latents_are_scaled_samples_of_the_posterior(autoencoder: Autoencoder) -> None:
    images, noise = torch.randn(2, 1, 16, 16).clamp(-1, 1), torch.randn(2, 2, 8, 8)
    posterior = autoencoder.vae.encode(images).latent_dist
    expected = (posterior.mean + posterior.std * noise) * 0.5
    torch.testing.assert_close(autoencoder.encode(images, noise), expected)
    assert (autoencoder.channels, autoencoder.factor) == (2, 2)
    decoded = autoencoder.vae.decode(expected / 0.5).sample.clamp(-1, 1)
    torch.testing.assert_close(autoencoder.decode(expected), decoded)


def test_large_pictures_take_the_room_of_few_and_become_the_same(
    autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, seen = torch.randn(5, 1, 16, 16).clamp(-1, 1), list[int]()
    posterior, decoded = autoencoder.posterior(images), autoencoder.decode(torch.ones(5, 2, 8, 8))
    monkeypatch.setattr("adapter_trainer.model.first_stage.PIXELS_AT_ONCE", 2 * 16 * 16)
    for part in (autoencoder.vae.encoder, autoencoder.vae.decoder):
        part.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    torch.testing.assert_close(autoencoder.posterior(images), posterior)
    torch.testing.assert_close(autoencoder.decode(torch.ones(5, 2, 8, 8)), decoded)
    assert seen == [2, 2, 1] * 2


def test_it_stays_in_float32_under_autocast(autoencoder: Autoencoder) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = autoencoder.encode(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 4, 4))
    assert latents.dtype == torch.float32
    assert torch.equal(latents, autoencoder.encode(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 4, 4)))


def test_a_saved_autoencoder_keeps_its_scale(autoencoder: Autoencoder, tmp_path: Path) -> None:
    autoencoder.vae.save_pretrained(tmp_path)
    loaded = first_stage(FirstStageConfig(pretrained=str(tmp_path)), channels=1, seed=9)
    images, noise = torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 4, 4)
    torch.testing.assert_close(loaded.encode(images, noise), autoencoder.encode(images, noise))


@pytest.mark.process
def test_training_on_latents_goes_through_the_same_path(data: Path, tmp_path: Path) -> None:
    unet = {"params": {"in_channels": 2, "out_channels": 2}}
    params = {"first_stage_config": STAGE, "unet_config": unet}
    settings = tiny.settings(data, {"model": {"params": params}, "sampling": {"rows": [{"digit": 1}], "steps": 2}})
    settings["model"]["params"]["first_stage_config"] = STAGE
    assert train_here(settings, tmp_path / "out") == 0
    saved = {path.name for path in (tmp_path / "out" / "checkpoint-3" / "model").iterdir()}
    assert saved == {"unet.safetensors", "label_to_token.safetensors", "first_stage.safetensors"}
    assert (tmp_path / "out" / "samples" / "step-3.png").is_file()


@pytest.mark.process
def test_training_on_patches_goes_through_the_same_path(data: Path, tmp_path: Path) -> None:
    unet = {"params": {"in_channels": 4, "out_channels": 4}}
    params = {"first_stage_config": {"target": "Pixels", "patch_size": 2}, "unet_config": unet}
    sampling = {"rows": [{"digit": 1}], "steps": 2, "images_per_row": 1}
    settings = tiny.settings(data, {"model": {"params": params}, "sampling": sampling})
    assert train_here(settings, tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "samples" / "step-3.png") as grid:
        assert grid.height == 64  # a picture of 8 x 8 pixels, enlarged


def test_an_autoencoder_has_no_trainable_weights(autoencoder: Autoencoder) -> None:
    assert isinstance(autoencoder.vae, AutoencoderKL)
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())
