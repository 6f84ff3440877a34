"""The conditioning sequence: [text tokens | label_to_token | embed_to_token | ...], joined on the sequence axis.

UNet2DConditionModel takes a sequence of any length; a dropped condition keeps its place with its null tokens, because
a missing or zeroed key would still change the softmax over the others.
"""

import torch
from torch import Tensor, nn

from adapter_trainer.model.projectors import ConditionTokens


class LabelToToken(ConditionTokens):
    """Label vectors [B, classes] (one-hot for indices) -> tokens [B, T, token_dim]."""


class EmbedToToken(ConditionTokens):
    """Embedding vectors [B, width] -> tokens [B, T, token_dim]."""


TOKEN_CONDITIONERS: dict[str, type[ConditionTokens]] = {"label_to_token": LabelToToken, "embed_to_token": EmbedToToken}
"""In the order of their tokens."""


def conditioning_sequence(
    text: Tensor | None,
    conditioners: nn.ModuleDict,
    features: dict[str, Tensor],
    dropped: dict[str, Tensor],
    *,
    batch_size: int,
    token_dim: int,
    like: Tensor,
) -> Tensor:
    """Joins the tokens of all conditions.

    Args:
        text: [B, L, token_dim], or None without text encoders.
        conditioners: by name; those present are used, in the order of TOKEN_CONDITIONERS.
        features: by conditioner name, [B, width].
        dropped: by conditioner name, [B] of bool.
        batch_size: B.
        token_dim: width of the UNet's cross-attention.
        like: gives device and dtype where there is no token at all.

    Returns:
        [B, L + sum of the conditioners' tokens, token_dim]; one zero token, which adds exactly nothing to
        attention, when there is no condition but adapters.
    """
    parts = [] if text is None else [text]
    parts += [conditioners[name](features[name], dropped[name]) for name in TOKEN_CONDITIONERS if name in conditioners]
    if not parts:
        return torch.zeros(batch_size, 1, token_dim, device=like.device, dtype=like.dtype)
    return torch.cat([part.to(parts[-1].dtype) for part in parts], dim=1)
