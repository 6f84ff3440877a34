"""The names of cross-attention layers that are worked out from a shape are those that diffusers builds."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from adapter_api.layers import cross_attention_layers, unmatched
from adapter_api.networks import UNetParams
from adapter_trainer.forecast.fake_tensors import fake_tensors
from adapter_trainer.model import adapters

SHAPES = {
    "SDXL": UNetParams(),
    "one number for all blocks": UNetParams(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        transformer_layers_per_block=2,
        attention_head_dim=2,
        cross_attention_dim=32,
        addition_embed_type=None,
    ),
    "no middle": UNetParams(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=(1, 2),
        transformer_layers_per_block=(1, 3),
        attention_head_dim=(1, 2),
        cross_attention_dim=32,
        addition_embed_type=None,
    ),
}


@pytest.mark.parametrize("params", SHAPES.values(), ids=SHAPES.keys())
def test_the_layers_of_a_shape_are_those_of_the_network(params: UNetParams) -> None:
    with fake_tensors(), torch.device("cpu"):
        unet = UNet2DConditionModel(**params.model_dump(exclude={"dropout"}))
    assert cross_attention_layers(params) == list(adapters.cross_attention_layers(unet))


def test_a_pattern_that_matches_nothing_is_answered_with_the_blocks_that_there_are() -> None:
    names = cross_attention_layers(UNetParams())
    assert len(names) == 70
    for pattern in ("*", "up_blocks.*", "up_blocks.0.attentions.1", "mid_block"):
        assert unmatched(pattern, names) is None
    assert unmatched("up_block.0", names) == (
        "'up_block.0' matches no cross-attention layer; they are in: down_blocks.1.attentions.0, "
        "down_blocks.1.attentions.1, down_blocks.2.attentions.0, down_blocks.2.attentions.1, up_blocks.0.attentions.0, "
        "up_blocks.0.attentions.1, … (11 in all)"
    )
