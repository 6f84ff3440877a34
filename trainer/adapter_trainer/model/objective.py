"""PURE: the diffusion objective; tensors in, tensor out."""

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor

from adapter_api.model import SchedulerParams

Floats = NDArray[np.float32]


class NoiseSchedule:
    """How much signal and noise a timestep holds: x_t = signal_t x_0 + noise_t epsilon (DDPM, arXiv 2006.11239)."""

    def __init__(
        self, params: SchedulerParams, device: torch.device | str = "cpu", min_snr_gamma: float | None = None
    ) -> None:
        filled = params.filled
        self.min_snr_gamma = min_snr_gamma
        self.prediction_type = filled.prediction_type
        self.timesteps = filled.num_train_timesteps
        # The betas are a property of the schedule, the same in every scheduler class that shares these parameters.
        scheduler = DDPMScheduler(**filled.model_dump(exclude={"steps_offset", "timestep_spacing"}))
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

    def weights(self, timesteps: Tensor) -> Tensor | None:
        """Weights [B] of the samples' losses (min-SNR, arXiv 2303.09556); None where all are equal.

        The loss on the image is weighed by min(SNR, gamma); predicting noise or velocity implies weights of 1 / SNR and
        1 / (SNR + 1) on it, which are divided out. Where nothing of the image is left, SNR = 0, the weights go to 1 for
        noise and to 0 for the others.
        """
        if self.min_snr_gamma is None:
            return None
        ratio = (self.signal[timesteps] / self.noise[timesteps]) ** 2
        capped = ratio.clamp(max=self.min_snr_gamma)
        divisors = {"sample": torch.ones_like(ratio), "v_prediction": ratio + 1, "epsilon": ratio}
        divisor = divisors[self.prediction_type]
        # Equal ones are 1 also where both are 0: the limit.
        return torch.where(capped == divisor, 1.0, capped / divisor)


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    return table[timesteps][:, None, None, None]


def losses(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Each sample's mean squared error in float32, times its weight: [B, C, H, W] and [B] -> [B]."""
    errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return errors if weights is None else weights * errors


def with_offset(noise: Floats, levels: Floats, strength: float) -> Floats:
    """Noise [C, H, W] plus `strength` times the level of each channel [C], both standard normal.

    Without it a model barely learns to change a picture's brightness (crosslabs.org/blog/diffusion-with-offset-noise).
    """
    return noise + np.float32(strength) * levels[:, None, None]
