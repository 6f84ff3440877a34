"""PURE: the diffusion objective; tensors in, tensor out."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from diffusers import DDPMScheduler
from torch import Tensor

from adapter_api.training import SchedulerParams


class NoiseSchedule:
    """How much signal and noise a timestep holds: x_t = signal_t x_0 + noise_t epsilon (DDPM, arXiv 2006.11239)."""

    def __init__(self, params: SchedulerParams, device: torch.device | str = "cpu") -> None:
        self.prediction_type = params.prediction_type
        self.timesteps = params.num_train_timesteps
        # The betas are a property of the schedule, the same in every scheduler class that shares these parameters.
        scheduler = DDPMScheduler(**params.model_dump(exclude={"steps_offset", "timestep_spacing"}))
        cumulative = scheduler.alphas_cumprod.double()
        self.signal = cumulative.sqrt().float().to(device)
        self.noise = (1 - cumulative).sqrt().float().to(device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents and noise [B, C, H, W], timesteps [B] of 0..timesteps-1 -> noisy latents."""
        return _at(self.signal, timesteps) * latents + _at(self.noise, timesteps) * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should predict: the noise, the latents, or velocity (arXiv 2202.00512, appendix D)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        return _at(self.signal, timesteps) * noise - _at(self.noise, timesteps) * latents


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    return table[timesteps][:, None, None, None]


def loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in float32, a scalar: the mean over samples of each sample's mean."""
    return F.mse_loss(prediction.float(), target.float())
