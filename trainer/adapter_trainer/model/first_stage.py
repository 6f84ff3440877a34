"""The first stage: images to latents and back; a VAE, or the pixels themselves."""

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from diffusers import AutoencoderKL
from torch import Tensor, nn

from adapter_api.networks import FirstStageConfig
from adapter_trainer.model import registry, sources

PIXELS_AT_ONCE = 1024**2
"""That an autoencoder takes in one pass: each of so large pictures needs some 3 GB for itself, and alone keeps a device busy."""


class FirstStage(Protocol):
    """What training and sampling need of a first stage."""

    channels: int
    factor: int
    """Pixels per latent along each side."""

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images [B, C, H, W] in -1..1 and standard normal noise of the latents' shape -> latents."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images [B, C, H, W] in -1..1."""


class Pixels(nn.Module):
    """Latents are the images, whole patches of them in one position: for small images, and for tests of everything else."""

    def __init__(self, channels: int, patch_size: int = 1) -> None:
        super().__init__()
        self.channels = channels * patch_size**2
        self.factor = patch_size

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002 - there is nothing to sample
        """The images, with the pixels of each patch as channels of one position."""
        return images if self.factor == 1 else F.pixel_unshuffle(images, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        """The latents as pixels again, clamped to the images' range."""
        return F.pixel_shuffle(latents, self.factor).clamp(-1, 1)


class Autoencoder(nn.Module):
    """A frozen KL autoencoder (arXiv 2112.10752); its scale and shift are part of the latents."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        self.channels = int(vae.config.latent_channels)
        self.factor = int(2 ** (len(vae.config.block_out_channels) - 1))
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(vae.config.shift_factor or 0.0)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: float32 where the configuration says that lower precision overflows."""
        dtype: torch.dtype = next(self.vae.parameters()).dtype
        return dtype

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """A sample of the posterior, in the UNet's units."""
        return self.latents(self.posterior(images), noise)

    def posterior(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in -1..1 -> mean and standard deviation of their latents, [B, 2, channels, h, w]."""
        parts = []
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for some in images.split(_at_once(images.shape[-2] * images.shape[-1])):
                distribution = self.vae.encode(some.to(self.dtype)).latent_dist
                parts.append(torch.stack([distribution.mean, distribution.std], dim=1))
        return torch.cat(parts)

    def latents(self, posterior: Tensor, noise: Tensor) -> Tensor:
        """A sample of a posterior [B, 2, channels, h, w], in the UNet's units; noise of the latents' shape."""
        mean, deviation = posterior.to(self.dtype).unbind(1)
        latents: Tensor = (mean + deviation * noise.to(self.dtype) - self.shift) * self.scale
        return latents.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Images in -1..1."""
        parts = []
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            for some in latents.split(_at_once(latents.shape[-2] * latents.shape[-1] * self.factor**2)):
                images: Tensor = self.vae.decode(some.to(self.dtype) / self.scale + self.shift).sample
                parts.append(images.float().clamp(-1, 1))
        return torch.cat(parts)


def _at_once(pixels: int) -> int:
    return max(PIXELS_AT_ONCE // pixels, 1)


def first_stage(
    config: FirstStageConfig, channels: int, seed: int, precision: torch.dtype = torch.float32
) -> Pixels | Autoencoder:
    """The configured first stage for images of `channels` channels; weights that are loaded, in float32 or `precision`."""
    field = "model.params.first_stage_config"
    if config.target == "Pixels":
        return Pixels(channels, config.patch_size)
    if config.pretrained is not None:
        dtype = torch.float32 if config.params.force_upcast else precision
        return Autoencoder(sources.load(registry.MODULES[config.target], config, field, dtype))
    blocks, params = len(config.params.block_out_channels), config.params.model_dump()
    vae = sources.build(
        "first_stage",
        seed,
        lambda: AutoencoderKL(
            **params,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
        ),
        field,
    )
    return Autoencoder(vae)


def latents_of(stage: Pixels | Autoencoder, images: Tensor | None, posterior: Tensor | None, noise: Tensor) -> Tensor:
    """The latents of a batch: of its images, or of the posterior [B, 2, channels, h, w] that was kept of them."""
    if images is not None:
        return stage.encode(images, noise)
    if posterior is None or not isinstance(stage, Autoencoder):
        raise TypeError("a batch has images, or what an autoencoder made of them")
    return stage.latents(posterior, noise)
