"""The objective agrees with diffusers' own schedule."""

import pytest
import torch
from diffusers import DDPMScheduler

from adapter_api.training import SchedulerParams
from adapter_trainer.objective import NoiseSchedule


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_are_those_of_diffusers(prediction: str) -> None:
    params = SchedulerParams.model_validate({"prediction_type": prediction})
    reference = DDPMScheduler(**params.model_dump(exclude={"steps_offset", "timestep_spacing"}))
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
