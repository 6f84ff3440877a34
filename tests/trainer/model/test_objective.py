"""The objective agrees with diffusers' own schedule."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.model import SchedulerParams
from adapter_trainer.model.objective import NoiseSchedule, losses, with_offset

PREDICTIONS = st.sampled_from(["epsilon", "v_prediction", "sample"])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_are_those_of_diffusers(prediction: str) -> None:
    params = SchedulerParams.model_validate({"prediction_type": prediction})
    reference = DDPMScheduler(**params.filled.model_dump(exclude={"steps_offset", "timestep_spacing"}))
    schedule = NoiseSchedule(params)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(6, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 1, 250, 500, 998, 999])
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, timesteps), reference.add_noise(latents, noise, timesteps)
    )
    expected = {
        "epsilon": noise,
        "v_prediction": reference.get_velocity(latents, noise, timesteps),
        "sample": latents,
    }
    torch.testing.assert_close(schedule.target(latents, noise, timesteps), expected[prediction])


@given(PREDICTIONS, st.floats(0.1, 50), st.lists(st.integers(0, 999), min_size=1, max_size=8))
def test_min_snr_weighs_the_loss_on_the_image_by_the_capped_ratio(
    prediction: str, gamma: float, steps: list[int]
) -> None:
    """Whatever is predicted, dividing by what its own loss implies on the image leaves min(SNR, gamma)."""
    params = SchedulerParams.model_validate({"prediction_type": prediction})
    timesteps = torch.tensor(steps)
    weights = NoiseSchedule(params, min_snr_gamma=gamma).weights(timesteps)
    ratio = compute_snr(
        DDPMScheduler(**params.filled.model_dump(exclude={"steps_offset", "timestep_spacing"})), timesteps
    )
    implied = {"epsilon": ratio, "v_prediction": ratio + 1, "sample": torch.ones_like(ratio)}[prediction]
    assert weights is not None
    torch.testing.assert_close(weights * implied, ratio.clamp(max=gamma), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("prediction", "weight"), [("v_prediction", 0.0), ("sample", 0.0), ("epsilon", 1.0)])
def test_min_snr_is_finite_where_nothing_of_the_image_is_left(prediction: str, weight: float) -> None:
    params = SchedulerParams.model_validate({"prediction_type": prediction, "rescale_betas_zero_snr": True})
    schedule = NoiseSchedule(params, min_snr_gamma=5.0)
    assert schedule.signal[999] == 0
    weights = schedule.weights(torch.tensor([999, 0]))
    assert weights is not None
    assert weights.isfinite().all()
    assert float(weights[0]) == pytest.approx(weight, abs=1e-12)


def test_without_min_snr_losses_are_plain_means() -> None:
    schedule = NoiseSchedule(SchedulerParams())
    prediction, target = torch.arange(16.0).view(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    assert schedule.weights(torch.tensor([3, 4])) is None
    torch.testing.assert_close(losses(prediction, target), prediction.square().mean((1, 2, 3)))
    torch.testing.assert_close(losses(prediction, target, torch.tensor([2.0, 0.0])), torch.tensor([35.0, 0.0]))


@given(st.floats(0, 1), st.integers(0, 100))
def test_offset_noise_moves_every_channel_as_a_whole(strength: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = random.standard_normal((4, 3, 5), dtype=np.float32)
    levels = random.standard_normal(4, dtype=np.float32)
    moved = with_offset(noise, levels, strength)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(
        moved - noise, np.broadcast_to((strength * levels)[:, None, None], noise.shape), atol=1e-6
    )
