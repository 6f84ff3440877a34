"""The configurations for SDXL are complete: they are valid, and their adapters are those that SDXL's files have."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from adapter_api.conditions import ProjectorParams
from adapter_api.document import read, validate
from adapter_api.networks import UNetParams
from adapter_api.sources import with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.model import ip_adapter_file
from adapter_trainer.model.adapters import Adapter, AdapterLayer, cross_attention_layers, matching_layers
from adapter_trainer.model.lora import LoraWeights
from adapter_trainer.model.original_names import original_name
from adapter_trainer.model.projectors import PROJECTORS, ConditionTokens
from tests.support.repository import CONFIGS

NAMES = ["sdxl-ip-adapter", "sdxl-ip-adapter-plus", "sdxl-label-embed", "sdxl-full"]
WIDTHS = {"sdxl-ip-adapter": 1280, "sdxl-ip-adapter-plus": 1280}
"""Of bigG's pooled embedding, and of ViT-H's states."""


def config_of(name: str) -> TrainingConfig:
    return validate(TrainingConfig, read(CONFIGS / f"{name}.yaml"))


@pytest.fixture
def sdxl() -> UNet2DConditionModel:
    """SDXL base's UNet without memory for its 2.6 billion parameters."""
    with torch.device("meta"):
        return UNet2DConditionModel(**UNetParams(sample_size=128).model_dump())


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_for_sdxl_is_valid_and_names_every_part(name: str) -> None:
    params = with_pipeline_sources(config_of(name).model.params)
    parts = [params.unet_config, params.first_stage_config, *params.text_config.encoders]
    assert len(parts) == 4
    assert all(part.pretrained and part.subfolder for part in parts)
    assert [encoder.tokenizer_subfolder for encoder in params.text_config.encoders] == ["tokenizer", "tokenizer_2"]


@pytest.mark.parametrize("name", WIDTHS)
def test_its_adapter_reaches_all_70_layers_with_340_million_parameters_and_loads_everywhere(
    sdxl: UNet2DConditionModel, name: str
) -> None:
    (settings,) = config_of(name).model.params.adapters_config.values()
    available = cross_attention_layers(sdxl)
    chosen = matching_layers(settings.layers, list(available), "layers")
    assert len(sdxl.attn_processors) == 140
    assert len(chosen) == 70
    with torch.device("meta"):
        projector = PROJECTORS[settings.projector.target](WIDTHS[name], 2048, settings.projector.params)
        tokens = ConditionTokens(projector, 2048, settings.null_condition)
        adapter = Adapter(tokens, {layer: AdapterLayer(available[layer]) for layer in chosen}, settings.scale)
    assert sum(parameter.numel() for parameter in adapter.layers.parameters()) == 340_787_200
    assert ip_adapter_file.diffusers_obstacle(adapter) is None
    assert ip_adapter_file.comfyui_obstacle(adapter, 2048) is None
    file = ip_adapter_file.to_file(adapter.state_dict(), ip_adapter_file.layers_of(sdxl))
    assert sum(name.startswith("ip_adapter.") for name in file) == 140


def test_the_style_adapter_reaches_the_ten_layers_of_its_block(sdxl: UNet2DConditionModel) -> None:
    style = config_of("sdxl-full").model.params.adapters_config["style"]
    chosen = matching_layers(style.layers, list(cross_attention_layers(sdxl)), "layers")
    numbers = {layer.name: layer.number for layer in ip_adapter_file.layers_of(sdxl)}
    assert [numbers[name] for name in chosen] == list(range(69, 88, 2))


def test_low_rank_weights_reach_all_140_attention_layers(sdxl: UNet2DConditionModel) -> None:
    settings = config_of("sdxl-label-embed").model.params.unet_config.lora
    assert settings is not None
    with torch.device("meta"):
        lora = LoraWeights(sdxl, settings)
    assert len(lora.layers) == 140 * 4
    assert lora.scale == 1


def test_a_full_adapter_has_a_token_for_each_of_vit_hs_states() -> None:
    with torch.device("meta"):
        projector = PROJECTORS["SequenceMLP"](1280, 2048, ProjectorParams(num_tokens=257))
        assert projector(torch.empty(1, 257, 1280)).shape == (1, 257, 2048)


COMFYUI_DEPTHS = {
    "input_blocks_4_1": 2, "input_blocks_5_1": 2, "input_blocks_7_1": 10, "input_blocks_8_1": 10, "middle_block_1": 10,
    "output_blocks_0_1": 10, "output_blocks_1_1": 10, "output_blocks_2_1": 10,
    "output_blocks_3_1": 2, "output_blocks_4_1": 2, "output_blocks_5_1": 2,
}  # fmt: skip
"""Transformer blocks of SDXL's UNet in ComfyUI (`comfy/supported_models.py`, 2024: transformer_depth [0, 0, 2, 2, 10, 10]). Its
loader knows a weight by `lora_unet_` and its name with underscores (`comfy/lora.py`, model_lora_keys_unet)."""


def test_low_rank_weights_have_the_names_that_comfyuis_loader_knows(sdxl: UNet2DConditionModel) -> None:
    settings = config_of("sdxl-label-embed").model.params.unet_config.lora
    assert settings is not None
    known = {
        f"lora_unet_{block}_transformer_blocks_{index}_{attention}_{layer}"
        for block, depth in COMFYUI_DEPTHS.items()
        for index in range(depth)
        for attention in ("attn1", "attn2")
        for layer in ("to_q", "to_k", "to_v", "to_out_0")
    }
    with torch.device("meta"):
        file = LoraWeights(sdxl, settings).to_kohya({})
    assert {name.partition(".")[0] for name in file} == known
    assert {name.partition(".")[2] for name in file} == {"lora_down.weight", "lora_up.weight", "alpha"}


def test_every_module_of_sdxl_has_the_name_that_diffusers_converts_back(sdxl: UNet2DConditionModel) -> None:
    """diffusers' own conversion of the original layout is the judge: of every weight, by its place."""
    config = dict(sdxl.config)
    own = sdxl.state_dict()
    attention = ["CrossAttn" in kind for kind in sdxl.config.up_block_types]
    original = {
        f"model.diffusion_model.{original_name(name.rpartition('.')[0], [2, 2, 2], attention)}.{name.rpartition('.')[2]}": value
        for name, value in own.items()
    }
    assert len(original) == len(own)
    back = convert_ldm_unet_checkpoint(dict(original), config)
    assert back.keys() == own.keys()
    assert all(back[name] is value for name, value in own.items())
