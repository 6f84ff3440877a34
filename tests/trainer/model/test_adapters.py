"""Adapter attention agrees with diffusers' own processors, and adapters reach the layers that patterns choose."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import Tensor

from adapter_api.conditions import ProjectorParams
from adapter_api.networks import UNetParams
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.adapters import (
    Adapter,
    AdapterAttention,
    AdapterLayer,
    attach,
    cross_attention_layers,
    matching_layers,
)
from adapter_trainer.model.projectors import ConditionTokens, LinearProjector
from tests.trainer.support.tiny import UNET

WIDTH, CONTEXT = 16, 12


@pytest.fixture
def attention() -> Any:
    torch.manual_seed(0)
    return Attention(query_dim=WIDTH, cross_attention_dim=CONTEXT, heads=4, dim_head=4, out_bias=True)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def adapter_of(layers: dict[str, AdapterLayer], scale: float = 1.0) -> Adapter:
    return Adapter(ConditionTokens(LinearProjector(3, CONTEXT, ProjectorParams()), CONTEXT, "zeros"), layers, scale)


def changed(attention: Any, seed: int) -> AdapterLayer:
    """A layer whose weights differ from the attention's own."""
    layer = AdapterLayer(attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return layer


def processor_of(layers: dict[str, AdapterLayer], scales: dict[str, float] | None = None) -> AdapterAttention:
    return AdapterAttention({name: adapter_of({}, (scales or {}).get(name, 1.0)) for name in layers}, layers)


@pytest.mark.parametrize("context", [None, draw(2, 7, CONTEXT)], ids=["self-attention", "cross-attention"])
def test_without_adapter_tokens_it_is_diffusers_attention(attention: Any, context: Tensor | None) -> None:
    if context is None:
        attention = Attention(query_dim=WIDTH, heads=4, dim_head=4)
    hidden = draw(2, 9, WIDTH)
    expected = AttnProcessor2_0()(attention, hidden, context)
    torch.testing.assert_close(processor_of({"style": AdapterLayer(attention)})(attention, hidden, context), expected)


def test_a_mask_over_the_context_acts_as_in_diffusers_attention(attention: Any) -> None:
    hidden, context = draw(2, 9, WIDTH), draw(2, 7, CONTEXT)
    mask = torch.zeros(2, 1, 7)
    mask[:, :, 4:] = -10_000
    expected = AttnProcessor2_0()(attention, hidden, context, attention_mask=mask)
    torch.testing.assert_close(processor_of({})(attention, hidden, context, attention_mask=mask), expected)


def reference(attention: Any, layers: list[AdapterLayer], scales: list[float], tokens: list[Tensor]) -> Tensor:
    theirs = IPAdapterAttnProcessor2_0(WIDTH, CONTEXT, num_tokens=[each.shape[1] for each in tokens], scale=scales)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            theirs.to_k_ip[index].weight.copy_(layer.to_k.weight)
            theirs.to_v_ip[index].weight.copy_(layer.to_v.weight)
    # diffusers counts images on the axis before the tokens
    result: Tensor = theirs(attention, draw(2, 9, WIDTH), (draw(2, 7, CONTEXT), [each[:, None] for each in tokens]))
    return result


def test_one_adapter_is_diffusers_ip_adapter(attention: Any) -> None:
    layer, tokens = changed(attention, seed=1), draw(2, 4, CONTEXT)
    ours = processor_of({"style": layer}, {"style": 0.6})
    got = ours(attention, draw(2, 9, WIDTH), draw(2, 7, CONTEXT), ip_hidden_states={"style": tokens})
    torch.testing.assert_close(got, reference(attention, [layer], [0.6], [tokens]))


def test_several_adapters_add_up(attention: Any) -> None:
    layers = {"style": changed(attention, seed=1), "face": changed(attention, seed=2)}
    tokens = {"style": draw(2, 4, CONTEXT), "face": draw(2, 5, CONTEXT)}
    scales = {"style": 0.6, "face": -1.5}
    got = processor_of(layers, scales)(attention, draw(2, 9, WIDTH), draw(2, 7, CONTEXT), ip_hidden_states=tokens)
    expected = reference(attention, list(layers.values()), list(scales.values()), list(tokens.values()))
    torch.testing.assert_close(got, expected)


def test_a_layer_starts_as_a_copy_of_the_attentions_own_keys_and_values(attention: Any) -> None:
    layer = AdapterLayer(attention)
    assert torch.equal(layer.to_k.weight, attention.to_k.weight)
    assert torch.equal(layer.to_v.weight, attention.to_v.weight)
    assert layer.to_k.weight is not attention.to_k.weight


NAMES = [
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.0.attentions.0.transformer_blocks.1.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        pytest.param(["*"], [0, 1, 2, 3, 4], id="all"),
        pytest.param(["mid_block"], [4], id="a block"),
        pytest.param(["down_blocks.1.attentions.1"], [1], id="part of a block"),
        pytest.param([NAMES[3]], [3], id="one layer"),
        pytest.param(["*.transformer_blocks.0.attn2"], [0, 1, 2, 4], id="a wildcard"),
        pytest.param(["up_blocks.?"], [2, 3], id="a wildcard block"),
        pytest.param(["mid_block", "down_blocks", "down_blocks.1"], [0, 1, 4], id="several, in the layers' order"),
    ],
)
def test_patterns_choose_layers(patterns: list[str], chosen: list[int]) -> None:
    assert matching_layers(patterns, NAMES, "layers") == [NAMES[index] for index in chosen]


@pytest.mark.parametrize(
    "pattern", ["up_blocks.9", "attn2", "down_blocks.1.attentions.1.transformer_blocks.0.attn1", "mid"]
)
def test_a_pattern_without_a_layer_names_the_field_and_the_layers(pattern: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        matching_layers(["mid_block", pattern], NAMES, "adapters_config.style.layers")
    message = str(caught.value)
    assert f"adapters_config.style.layers[1]: {pattern!r} matches no cross-attention layer" in message
    assert NAMES[0] in message


@pytest.fixture
def unet() -> Any:
    return UNet2DConditionModel(**{**UNET, "addition_embed_type": None, "addition_time_embed_dim": None})


def attached(unet: Any, patterns: list[str]) -> Adapter:
    layers = cross_attention_layers(unet)
    chosen = matching_layers(patterns, list(layers), "layers")
    adapter = adapter_of({name: AdapterLayer(layers[name]) for name in chosen})
    attach(unet, {"style": adapter})
    return adapter


def test_attaching_registers_nothing_in_the_unet(unet: Any) -> None:
    before, parameters = list(unet.state_dict()), list(unet.parameters())
    adapter = attached(unet, ["*"])
    assert list(unet.state_dict()) == before
    assert [id(parameter) for parameter in unet.parameters()] == [id(parameter) for parameter in parameters]
    together = torch.nn.ModuleDict({"unet": unet, "adapter": adapter})
    weights = [name for name, _ in together.named_parameters(remove_duplicate=False) if "to_k" in name]
    assert len([name for name in weights if name.startswith("adapter.")]) == len(cross_attention_layers(unet))
    assert len({id(parameter) for parameter in together.parameters()}) == len(list(together.parameters()))


def test_layers_that_no_pattern_chose_keep_their_processor(unet: Any) -> None:
    before = dict(unet.attn_processors)
    attached(unet, ["up_blocks"])
    kept = {name for name, processor in unet.attn_processors.items() if processor is before[name]}
    assert {name for name in before if name not in kept} == {
        f"{name}.processor" for name in cross_attention_layers(unet) if name.startswith("up_blocks")
    }


@pytest.fixture(scope="module")
def sdxl() -> Any:
    """SDXL base's UNet without memory for its 2.6 billion parameters."""
    with torch.device("meta"):
        return UNet2DConditionModel(**UNetParams(sample_size=128).model_dump())


def test_sdxl_has_70_cross_attention_layers_ordered_down_up_mid(sdxl: Any) -> None:
    names = list(cross_attention_layers(sdxl))
    assert len(sdxl.attn_processors) == 140
    assert len(names) == 70
    blocks = [name.split(".attentions")[0] for name in names]
    assert list(dict.fromkeys(blocks)) == ["down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1", "mid_block"]
    assert [blocks.count(block) for block in dict.fromkeys(blocks)] == [4, 20, 30, 6, 10]


def test_an_adapter_on_all_of_sdxl_has_341_million_keys_and_values(sdxl: Any) -> None:
    layers = {name: AdapterLayer(layer) for name, layer in cross_attention_layers(sdxl).items()}
    count = sum(parameter.numel() for layer in layers.values() for parameter in layer.parameters())
    assert count == 340_787_200
    assert sum(parameter.numel() for parameter in sdxl.parameters()) == 2_567_463_684
