"""A plain training script for an IP-Adapter, as the published recipe has it: what ours is measured against.

One file from beginning to end, without anything of this project: a dataset that opens pictures when they are asked for;
VAE, image encoder and text encoders in every step; frozen weights in float32; AdamW; nothing compiled. The order of what
happens follows tencent-ailab/IP-Adapter's SDXL script; the code is our own.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection


class Pictures(Dataset[dict[str, Any]]):
    """A picture, its caption's tokens and its own image as reference."""

    def __init__(
        self, folder: Path, names: list[tuple[str, str]], size: int, tokenizers: list[Any], clip_size: int
    ) -> None:
        self.folder, self.names, self.size, self.tokenizers = folder, names, size, tokenizers
        self.processor = CLIPImageProcessor(size={"shortest_edge": clip_size}, crop_size=clip_size)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, read anew each time."""
        name, caption = self.names[index]
        raw = Image.open(self.folder / name).convert("RGB")
        width, height = raw.size
        scale = self.size / min(width, height)
        resized = raw.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
        top, left = (resized.height - self.size) // 2, (resized.width - self.size) // 2
        pixels = np.asarray(resized)[top : top + self.size, left : left + self.size]
        image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
        clip = self.processor(images=raw, return_tensors="pt").pixel_values[0]
        drop = random.random()
        return {
            "image": image,
            "clip": clip,
            "drop_image": drop < 0.05 or 0.1 <= drop < 0.15,
            "ids": [self._ids(tokenizer, "" if 0.05 <= drop < 0.15 else caption) for tokenizer in self.tokenizers],
            "time_ids": torch.tensor([height, width, top, left, self.size, self.size], dtype=torch.float32),
        }

    def _ids(self, tokenizer: Any, text: str) -> Tensor:
        length = tokenizer.model_max_length
        ids: Tensor = tokenizer(
            text, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids[0]
        return ids


class ImageProjection(nn.Module):
    """Four tokens from one embedding."""

    def __init__(self, width: int, token_dim: int, tokens: int = 4) -> None:
        super().__init__()
        self.tokens, self.token_dim = tokens, token_dim
        self.proj = nn.Linear(width, tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, embeds: Tensor) -> Tensor:
        """Embeddings [B, width] -> tokens [B, tokens, token_dim]."""
        tokens: Tensor = self.norm(self.proj(embeds).reshape(-1, self.tokens, self.token_dim))
        return tokens


class AdapterProcessor(nn.Module):
    """Cross-attention over the text, and over the picture's tokens, which stand at the end of the sequence."""

    def __init__(self, attention: Attention, tokens: int = 4) -> None:
        super().__init__()
        self.tokens = tokens
        self.to_k_ip = nn.Linear(attention.cross_attention_dim, attention.inner_dim, bias=False)
        self.to_v_ip = nn.Linear(attention.cross_attention_dim, attention.inner_dim, bias=False)
        self.to_k_ip.weight.data.copy_(attention.to_k.weight)
        self.to_v_ip.weight.data.copy_(attention.to_v.weight)

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Hidden states [B, S, C] -> [B, S, C]."""
        text, picture = encoder_hidden_states[:, : -self.tokens], encoder_hidden_states[:, -self.tokens :]

        def heads(states: Tensor) -> Tensor:
            return states.view(states.shape[0], -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        attended = F.scaled_dot_product_attention(query, heads(attn.to_k(text)), heads(attn.to_v(text)))
        attended = attended + F.scaled_dot_product_attention(
            query, heads(self.to_k_ip(picture)), heads(self.to_v_ip(picture))
        )
        output: Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
        return output


@dataclass
class Recipe:
    """A run of the script: models and batches; `step` takes one."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    text_encoders: list[Any]
    batches: Iterator[dict[str, Any]]
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        for module in (self.unet, self.vae, self.image_encoder, *self.text_encoders):
            module.requires_grad_(False).to(self.device)
        self.vae.to(torch.float32)
        for module in (self.image_encoder, *self.text_encoders):
            module.to(self.dtype)
        processors: dict[str, Any] = {}
        modules = dict(self.unet.named_modules())
        for name in self.unet.attn_processors:
            attention = modules[name.removesuffix(".processor")]
            is_cross = name.endswith("attn2.processor")
            processors[name] = AdapterProcessor(attention) if is_cross else AttnProcessor2_0()
        self.unet.set_attn_processor(processors)
        adapters = [processor for processor in processors.values() if isinstance(processor, AdapterProcessor)]
        width = self.image_encoder.config.projection_dim
        self.projection = ImageProjection(width, self.unet.config.cross_attention_dim)
        self.trained = nn.ModuleList([self.projection, *adapters]).to(self.device)
        self.trained.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), lr=1e-4, weight_decay=0.01)
        self.schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    def step(self) -> float:
        """One step of the optimizer; the loss."""
        batch = next(self.batches)
        with torch.no_grad():
            images = batch["image"].to(self.device)
            latents = self.vae.encode(images).latent_dist.sample() * self.vae.config.scaling_factor
            embeds = self.image_encoder(batch["clip"].to(self.device, self.dtype)).image_embeds
            embeds = torch.where(batch["drop_image"].to(self.device)[:, None], torch.zeros_like(embeds), embeds)
            states = []
            for encoder, ids in zip(self.text_encoders, batch["ids"], strict=True):
                output = encoder(ids.to(self.device), output_hidden_states=True)
                states.append(output.hidden_states[-2])
            pooled = output[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=self.device)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            sequence = torch.cat([torch.cat(states, dim=-1), self.projection(embeds)], dim=1)
            micro = {"text_embeds": pooled, "time_ids": batch["time_ids"].to(self.device)}
            predicted = self.unet(noisy, timesteps, encoder_hidden_states=sequence, added_cond_kwargs=micro).sample
            loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def batches(dataset: Pictures, batch_size: int) -> Iterator[dict[str, Any]]:
    """Shuffled epochs without end, read in the training process, as the script's default has it."""
    loader: DataLoader[dict[str, Any]] = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader
