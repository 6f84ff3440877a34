"""Noise, targets and weights are those of diffusers' own schedulers, for every schedule that can be configured."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from adapter_api.model import SchedulerParams
from adapter_trainer.model.objective import NoiseSchedule

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2"]
TIMESTEPS = torch.tensor([0, 1, 17, 250, 500, 998, 999])


def params_of(**given: Any) -> tuple[SchedulerParams, dict[str, Any]]:
    params = SchedulerParams.model_validate(given)
    return params, params.filled.model_dump(exclude={"steps_offset", "timestep_spacing"})


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(len(TIMESTEPS), 4, 8, 8, generator=generator) for _ in range(2))
    return latents, noise


@pytest.mark.parametrize("zero_snr", [False, True], ids=["as it is", "zero terminal SNR"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
def test_noise_and_target(scheduler: Any, prediction: str, betas: str, *, zero_snr: bool) -> None:
    params, given = params_of(prediction_type=prediction, beta_schedule=betas, rescale_betas_zero_snr=zero_snr)
    reference, schedule = scheduler(**given), NoiseSchedule(params)
    latents, noise = drawn()
    expected = reference.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(schedule.add_noise(latents, noise, TIMESTEPS), expected, rtol=1e-5, atol=2e-6)
    velocity = reference.get_velocity(latents, noise, TIMESTEPS)
    target = {"epsilon": noise, "sample": latents, "v_prediction": velocity}[prediction]
    torch.testing.assert_close(schedule.target(latents, noise, TIMESTEPS), target, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_eulers_sigmas_are_the_same_noise_at_another_scale(betas: str) -> None:
    params, given = params_of(beta_schedule=betas)
    reference, schedule = EulerDiscreteScheduler(**given), NoiseSchedule(params)
    latents, noise = drawn()
    sigmas = reference.sigmas[:-1].flip(0)[TIMESTEPS][:, None, None, None]
    scaled = (latents + sigmas * noise) / (sigmas**2 + 1).sqrt()
    torch.testing.assert_close(schedule.add_noise(latents, noise, TIMESTEPS), scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_are_those_of_diffusers_training_scripts(prediction: str, gamma: float) -> None:
    """`examples/text_to_image/train_text_to_image_sdxl.py`: min(SNR, gamma) over SNR, or SNR + 1 for velocity."""
    params, given = params_of(prediction_type=prediction)
    ratio = compute_snr(DDPMScheduler(**given), TIMESTEPS)
    capped = torch.stack([ratio, gamma * torch.ones_like(ratio)], dim=1).min(dim=1)[0]
    expected = {"epsilon": capped / ratio, "v_prediction": capped / (ratio + 1), "sample": capped}[prediction]
    weights = NoiseSchedule(params, min_snr_gamma=gamma).weights(TIMESTEPS)
    assert weights is not None
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
