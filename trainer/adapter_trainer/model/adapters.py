"""IP-Adapters: keys and values of their own in chosen cross-attention layers (arXiv 2308.06721).

Adapters live beside the UNet, and attention processors only refer to them. A processor that owned its weights would be
registered in the UNet a second time, and saving would drop one of the two copies.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.projectors import ConditionTokens


def cross_attention_layers(unet: nn.Module) -> dict[str, Attention]:
    """Cross-attention layers by name, in the order of `unet.attn_processors` (down, up, mid)."""
    modules = dict(unet.named_modules())
    names = [name.removesuffix(".processor") for name in unet.attn_processors]  # type: ignore[union-attr]
    return {name: modules[name] for name in names if name.endswith("attn2")}


def matching_layers(patterns: Sequence[str], names: Sequence[str], field: str) -> list[str]:
    """Names that any of the shell patterns matches; a pattern ending in a block's name means all layers in it.

    Raises:
        InvalidConfig: a pattern that matches nothing.
    """
    chosen: set[str] = set()
    for index, pattern in enumerate(patterns):
        matched = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not matched:
            shown = ", ".join(names[:6]) + (f", … ({len(names)} in all)" if len(names) > 6 else "")
            raise InvalidConfig(f"{field}[{index}]: {pattern!r} matches no cross-attention layer; they are: {shown}")
        chosen |= matched
    return [name for name in names if name in chosen]


def _heads(projected: Tensor, heads: int) -> Tensor:
    split: Tensor = projected.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


class AdapterLayer(nn.Module):
    """One adapter's keys and values in one layer, initialised from the layer's own, as the reference does."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        to_k, to_v = attention.to_k, attention.to_v
        self.to_k = nn.Linear(to_k.in_features, to_k.out_features, bias=False, device=to_k.weight.device)
        self.to_v = nn.Linear(to_v.in_features, to_v.out_features, bias=False, device=to_v.weight.device)
        with torch.no_grad():
            self.to_k.weight.copy_(to_k.weight)
            self.to_v.weight.copy_(to_v.weight)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Attention of query [B, heads, S, head_dim] over tokens [B, T, token_dim]: [B, heads, S, head_dim]."""
        heads = query.shape[1]
        key, value = _heads(self.to_k(tokens), heads), _heads(self.to_v(tokens), heads)
        return F.scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype))


class Adapter(nn.Module):
    """One IP-Adapter: condition to tokens, and a layer for each cross-attention layer that it reaches."""

    def __init__(self, tokens: ConditionTokens, layers: dict[str, AdapterLayer], scale: float) -> None:
        super().__init__()
        self.tokens = tokens
        self.layers = nn.ModuleDict({name.replace(".", "/"): layer for name, layer in layers.items()})
        self.scale = scale

    def layer_names(self) -> list[str]:
        """The cross-attention layers that it reaches."""
        return [name.replace("/", ".") for name in self.layers]

    def layer(self, name: str) -> AdapterLayer | None:
        """The part in the cross-attention layer of that name."""
        return dict(self.layers).get(name.replace(".", "/"))  # type: ignore[return-value]


class AdapterAttention:
    """Attention processor: the layer's own cross-attention plus the scaled sum of the adapters' branches.

    Not a module: it owns no weights. Adapter tokens come by adapter name in `ip_hidden_states`, a keyword argument that
    diffusers hands down to every attention layer and silently skips where a processor does not take it.
    """

    def __init__(self, adapters: dict[str, Adapter], layers: dict[str, AdapterLayer]) -> None:
        self.adapters = adapters
        self.layers = layers

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,  # noqa: ARG002 - part of the processors' signature
        ip_hidden_states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states [B, S, C] of a transformer block -> [B, S, C]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross and encoder_hidden_states is not None:
            context = attn.norm_encoder_hidden_states(encoder_hidden_states)
        if attention_mask is not None:
            batch, length = context.shape[:2]
            attention_mask = attn.prepare_attention_mask(attention_mask, length, batch).view(
                batch, attn.heads, -1, length
            )
        query = _heads(attn.to_q(hidden_states), attn.heads)
        key, value = _heads(attn.to_k(context), attn.heads), _heads(attn.to_v(context), attn.heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if ip_hidden_states is not None:
            for name, layer in self.layers.items():
                attended = attended + self.adapters[name].scale * layer(query, ip_hidden_states[name])
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
        output = attn.to_out[1](output)
        if attn.residual_connection:
            output = output + hidden_states
        return output / float(attn.rescale_output_factor)


def attach(unet: nn.Module, adapters: dict[str, Adapter]) -> None:
    """Makes every cross-attention layer that an adapter reaches use it; the others keep their processor."""
    processors = dict(unet.attn_processors)  # type: ignore[arg-type]
    for name in cross_attention_layers(unet):
        layers = {key: layer for key, adapter in adapters.items() if (layer := adapter.layer(name)) is not None}
        if layers:
            processors[f"{name}.processor"] = AdapterAttention(adapters, layers)
    unet.set_attn_processor(processors)  # type: ignore[operator]
