"""Projectors from one condition's features to tokens in the width of the UNet's cross-attention.

Parameter names are those of the files that IP-Adapter publishes (arXiv 2308.06721): `proj` and `norm` for the base
layout, `proj.0`, `proj.2` and `norm` for the MLP layout.
"""

import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

from adapter_api.training import ProjectorParams


class LinearProjector(nn.Module):
    """One linear layer and LayerNorm: features [B, input_dim] -> tokens [B, num_tokens, token_dim]."""

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__()
        self.num_tokens = params.num_tokens
        self.proj: nn.Module = nn.Linear(input_dim, params.num_tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, num_tokens, token_dim]."""
        tokens: Tensor = self.norm(self.proj(features).unflatten(1, (self.num_tokens, -1)))
        return tokens


class MLPProjector(LinearProjector):
    """Two linear layers with GELU between, and LayerNorm: features [B, input_dim] -> tokens."""

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__(input_dim, token_dim, params)
        hidden_dim = params.hidden_dim or max(input_dim, token_dim)
        self.proj = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, params.num_tokens * token_dim)
        )


class PerceiverResampler(nn.Module):
    """Learned queries that attend to a sequence: features [B, S, input_dim] -> tokens [B, num_tokens, token_dim]."""

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__()
        hidden_dim = params.hidden_dim or input_dim
        heads = params.heads or max(hidden_dim // 64, 1)
        self.num_tokens = params.num_tokens
        self.resampler = IPAdapterPlusImageProjection(
            embed_dims=input_dim,
            output_dims=token_dim,
            hidden_dims=hidden_dim,
            depth=params.depth,
            dim_head=hidden_dim // heads,
            heads=heads,
            num_queries=params.num_tokens,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, num_tokens, token_dim]."""
        tokens: Tensor = self.resampler(features)
        return tokens


class ConditionTokens(nn.Module):
    """A projector and its null: features [B, ...] and which samples are dropped [B] -> tokens [B, T, token_dim].

    The null is declared, not implied: what a dropped condition becomes in training is what guidance uses at sampling.
    """

    def __init__(self, projector: nn.Module, token_dim: int, null: str) -> None:
        super().__init__()
        self.projector = projector
        self.null = null
        self.num_tokens = int(projector.num_tokens)  # type: ignore[arg-type]
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
