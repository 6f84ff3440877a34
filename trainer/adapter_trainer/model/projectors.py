"""Projectors from one condition's features to tokens in the width of the UNet's cross-attention.

Parameter names are those of the files that IP-Adapter publishes (arXiv 2308.06721), so that an export renames nothing here:
`proj` and `norm` for the base layout; `proj.0`, `proj.2` and `norm` for FaceID's; `proj.0`, `proj.2` and `proj.3` for the full
one; `latents`, `proj_in`, `layers`, `proj_out` and `norm_out` for Plus.

What the two loaders of such files make of a projector is read off diffusers 0.42.1 (`loaders/unet.py`), which tells layouts
apart by these names and fixes everything else; and off ComfyUI_IPAdapter_plus (`IPAdapterPlus.py`, 2024), which fixes more: it
takes Plus and full alike for files whose tokens are 1280 wide, where the UNet is SDXL's.
"""

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from adapter_api.conditions import ProjectorParams

HEAD_DIM = 64
"""Width of an attention head of the published resamplers."""
LINEAR_TOKENS = 4
RESAMPLER_DEPTH = 4
"""Both fixed in diffusers' loader, which for another depth crashes, or loads the first four layers without a word."""
SDXL_CONTEXT = 2048
COMFYUI_RESAMPLER_DIM = 1280
COMFYUI_RESAMPLER_TOKENS = 16
UNKNOWN = "unknown"


class Projector(nn.Module):
    """From one condition's features to tokens.

    A class that names no layout of its own is of none that a loader knows, whatever it inherits.
    """

    layout: ClassVar[str] = UNKNOWN
    """What published files of this layout are called."""
    is_per_feature: ClassVar[bool] = False
    """Whether it makes one token of each feature, so that `num_tokens` is the length of what it reads."""

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__()
        self.input_dim, self.token_dim, self.num_tokens = input_dim, token_dim, params.num_tokens

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.layout = vars(cls).get("layout", UNKNOWN)

    def diffusers_obstacle(self) -> str | None:
        """Why `load_ip_adapter` would fail or load something else; None when it loads exactly this projector."""
        return self.unknown_obstacle

    def comfyui_obstacle(self) -> str | None:
        """Why ComfyUI would not load what diffusers does; None when it fits."""
        return self.unknown_obstacle

    @property
    def unknown_obstacle(self) -> str:
        """What is said of a layout that no loader was looked through for."""
        return f"a projector of kind {type(self).__name__} is not known to load"


class LinearProjector(Projector):
    """One linear layer and LayerNorm: features [B, input_dim] -> tokens [B, num_tokens, token_dim]."""

    layout = "base"

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__(input_dim, token_dim, params)
        self.proj: nn.Module = nn.Linear(input_dim, params.num_tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, num_tokens, token_dim]."""
        tokens: Tensor = self.norm(self.proj(features).unflatten(1, (self.num_tokens, -1)))
        return tokens

    def diffusers_obstacle(self) -> str | None:
        """It knows one number of tokens."""
        if self.num_tokens == LINEAR_TOKENS:
            return None
        return f"projector.params.num_tokens is {self.num_tokens}; a Linear projector has {LINEAR_TOKENS}"

    def comfyui_obstacle(self) -> str | None:
        """It takes what diffusers takes."""
        return None


class MLPProjector(LinearProjector):
    """Two linear layers with GELU between, and LayerNorm: features [B, input_dim] -> tokens."""

    layout = "FaceID"

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__(input_dim, token_dim, params)
        # A multiple of the input: diffusers derives the width inside from a whole factor.
        hidden_dim = params.hidden_dim or input_dim * -(-token_dim // input_dim)
        self.proj = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, params.num_tokens * token_dim)
        )
        self.hidden_dim = hidden_dim

    def diffusers_obstacle(self) -> str | None:
        """It derives the width inside as a multiple of the input's."""
        if self.hidden_dim % self.input_dim == 0:
            return None
        return f"projector.params.hidden_dim is {self.hidden_dim}; an MLP's is a multiple of the input's width, {self.input_dim}"

    def comfyui_obstacle(self) -> str | None:
        """It knows this layout as another's."""
        return "an MLP projector is taken for FaceID, which reads InsightFace's embedding of a face"


class SequenceMLP(Projector):
    """Two linear layers with GELU between, and LayerNorm, for each feature: [B, S, input_dim] -> tokens [B, S, token_dim]."""

    layout = "full"
    is_per_feature = True

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        """`params.num_tokens` must be S."""
        super().__init__(input_dim, token_dim, params)
        self.hidden_dim = params.hidden_dim or input_dim
        self.proj = nn.Sequential(
            nn.Linear(input_dim, self.hidden_dim),
            nn.GELU(),
            nn.Linear(self.hidden_dim, token_dim),
            nn.LayerNorm(token_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, S, token_dim]."""
        tokens: Tensor = self.proj(features)
        return tokens

    def diffusers_obstacle(self) -> str | None:
        """It takes the width inside to be the input's."""
        if self.hidden_dim == self.input_dim:
            return None
        return (
            f"projector.params.hidden_dim is {self.hidden_dim}; a SequenceMLP's is the input's width, {self.input_dim}"
        )

    def comfyui_obstacle(self) -> str | None:
        """It fixes the width of this layout's tokens."""
        return (
            f"a SequenceMLP; of an adapter for SDXL it makes the full layout's tokens {COMFYUI_RESAMPLER_DIM} wide, and this "
            f"one's are {SDXL_CONTEXT}"
        )


class PerceiverAttention(nn.Module):
    """Latents attend to the features and to themselves (Flamingo, arXiv 2204.14198, section 2.1)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Features [B, S, dim] and latents [B, N, dim] -> [B, N, dim]."""
        latents = self.norm2(latents)
        query = self.to_q(latents)
        key, value = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return output


class PerceiverResampler(Projector):
    """Learned queries that attend to a sequence: features [B, S, input_dim] -> tokens [B, num_tokens, token_dim]."""

    layout = "Plus"

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        """Raises ValueError unless the heads divide the width."""
        super().__init__(input_dim, token_dim, params)
        hidden_dim = params.hidden_dim or input_dim
        heads = params.heads or max(hidden_dim // HEAD_DIM, 1)
        if hidden_dim % heads:
            raise ValueError(f"hidden_dim {hidden_dim} is not a multiple of heads {heads}")
        self.hidden_dim, self.heads = hidden_dim, heads
        self.latents = nn.Parameter(torch.randn(1, params.num_tokens, hidden_dim) / hidden_dim**0.5)
        self.proj_in = nn.Linear(input_dim, hidden_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(hidden_dim, heads), _feed_forward(hidden_dim)])
            for _ in range(params.depth)
        )
        self.proj_out = nn.Linear(hidden_dim, token_dim)
        self.norm_out = nn.LayerNorm(token_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, num_tokens, token_dim]."""
        latents = self.latents.expand(len(features), -1, -1)
        features = self.proj_in(features)
        for layer in self.layers:
            attention, feed_forward = cast("nn.ModuleList", layer)
            latents = attention(features, latents) + latents
            latents = feed_forward(latents) + latents
        tokens: Tensor = self.norm_out(self.proj_out(latents))
        return tokens

    def diffusers_obstacle(self) -> str | None:
        """It fixes the number of layers, and the width of a head."""
        if len(self.layers) != RESAMPLER_DEPTH:
            return f"projector.params.depth is {len(self.layers)}; a resampler loads with {RESAMPLER_DEPTH}"
        if self.hidden_dim != self.heads * HEAD_DIM:
            return (
                f"projector.params.heads is {self.heads} for a hidden_dim of {self.hidden_dim}; a resampler's heads are "
                f"{HEAD_DIM} wide, so that heads is hidden_dim / {HEAD_DIM}"
            )
        return None

    def comfyui_obstacle(self) -> str | None:
        """It knows the published size alone."""
        if self.hidden_dim != COMFYUI_RESAMPLER_DIM:
            return f"projector.params.hidden_dim is {self.hidden_dim}; it expects {COMFYUI_RESAMPLER_DIM}"
        if self.num_tokens != COMFYUI_RESAMPLER_TOKENS:
            return f"projector.params.num_tokens is {self.num_tokens}; it expects {COMFYUI_RESAMPLER_TOKENS}"
        return None


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )


PROJECTORS: dict[str, type[Projector]] = {
    "Linear": LinearProjector,
    "MLP": MLPProjector,
    "SequenceMLP": SequenceMLP,
    "PerceiverResampler": PerceiverResampler,
}
"""By the name that a configuration gives them."""


class ConditionTokens(nn.Module):
    """A projector and its null: features [B, ...] and which samples are dropped [B] -> tokens [B, T, token_dim].

    The null is declared, not implied: what a dropped condition becomes in training is what guidance uses at sampling.
    """

    def __init__(self, projector: Projector, token_dim: int, null: str) -> None:
        super().__init__()
        self.projector: Projector = projector
        self.null = null
        self.num_tokens = projector.num_tokens
        if null == "learned":
            self.null_tokens = nn.Parameter(torch.randn(self.num_tokens, token_dim) * 0.02)

    def forward(self, features: Tensor, dropped: Tensor) -> Tensor:
        """Tokens, with the null's in place of the dropped samples'."""
        if self.null == "encoded":
            # Sequences were encoded from an empty image already: a zero feature is not what an encoder gives.
            if features.ndim == 2:
                features = features.masked_fill(dropped[:, None], 0)
            tokens: Tensor = self.projector(features)
            return tokens
        tokens = self.projector(features)
        null = self.null_tokens.to(tokens.dtype) if self.null == "learned" else torch.zeros_like(tokens[0])
        return torch.where(dropped[:, None, None], null, tokens)
