"""Training starts from LoRA files that diffusers and kohya's scripts write: the product that they add is kept exactly."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from adapter_api.networks import LoraConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.lora import LoraWeights
from adapter_trainer.model.lora_file import begin_lora
from adapter_trainer.sampling import sample
from tests.trainer.support import runs, tiny

FIELD = "model.params.unet_config.lora"
TARGETS = ("to_q", "to_v", "ff.net.2")


def weights(
    rank: int = 3, alpha: float | None = None, seed: int = 0, targets: tuple[str, ...] = TARGETS
) -> LoraWeights:
    """Low-rank weights in a small UNet, with products that are not zero."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**tiny.UNET)
    lora = LoraWeights(unet, LoraConfig(rank=rank, alpha=alpha, target_modules=targets))
    for layer in lora.layers.values():
        torch.nn.init.normal_(layer["B"].weight)  # type: ignore[index]
    return lora


def products(lora: LoraWeights) -> dict[str, Tensor]:
    """What is added to each layer's weights."""
    return {
        name: lora.scale * layer["B"].weight.flatten(1) @ layer["A"].weight.flatten(1)  # type: ignore[index]
        for name, layer in lora.layers.items()
    }


def written(lora: LoraWeights, layout: str, folder: Path) -> str:
    path = folder / f"{layout}.safetensors"
    if layout == "diffusers":
        save_file({name: value.contiguous() for name, value in lora.to_file({}).items()}, path)
    else:
        save_file({name: value.contiguous() for name, value in lora.to_kohya({}).items()}, path)
    return str(path)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_what_a_file_adds_is_added_whatever_alpha_is_here(layout: str, tmp_path: Path) -> None:
    theirs, ours = weights(alpha=4.5), weights(alpha=1.5, seed=1)
    begin_lora(ours, written(theirs, layout, tmp_path), FIELD)
    torch.testing.assert_close(products(ours), products(theirs))


def test_alpha_in_the_metadata_that_diffusers_writes_is_heeded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**tiny.UNET)
    theirs = LoraWeights(unet, LoraConfig(rank=3, alpha=4.5, target_modules=TARGETS))
    for layer in theirs.layers.values():
        torch.nn.init.normal_(layer["B"].weight)  # type: ignore[index]
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="default"),
        unet_lora_adapter_metadata={"r": 3, "lora_alpha": 4.5, "target_modules": list(TARGETS)},
    )
    ours = weights(seed=1)
    begin_lora(ours, str(tmp_path / "pytorch_lora_weights.safetensors"), FIELD)
    torch.testing.assert_close(products(ours), products(theirs))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (lambda: weights(rank=4), r"of rank 3 and shape .* set .*lora\.rank to the file's"),
        (lambda: weights(targets=(*TARGETS, "to_k")), r"has no weights for .*to_k and \d+ more of the layers"),
        (lambda: weights(targets=("to_q",)), r"has weights for .* that are not among the layers"),
    ],
    ids=["another rank", "fewer layers", "more layers"],
)
@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_file_that_does_not_fit_names_the_field_to_change(
    lora: object, message: str, layout: str, tmp_path: Path
) -> None:
    file = written(weights(), layout, tmp_path)
    with pytest.raises(InvalidConfig, match=rf"^model\.params\.unet_config\.lora\.pretrained: .*{message}"):
        begin_lora(lora(), file, FIELD)  # type: ignore[operator]


def test_text_encoders_and_magnitudes_are_refused_rather_than_left_out(tmp_path: Path) -> None:
    state = weights().to_file({})
    for name, more in {
        "text": {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(3, 8)},
        "dora": {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.dora_scale": torch.ones(8)},
    }.items():
        save_file({**state, **more}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InvalidConfig, match="holds weights for text_encoder as well"):
        begin_lora(weights(), str(tmp_path / "text.safetensors"), FIELD)
    with pytest.raises(InvalidConfig, match="is a DoRA"):
        begin_lora(weights(), str(tmp_path / "dora.safetensors"), FIELD)


def test_what_is_no_lora_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InvalidConfig, match="cannot be read as a LoRA for SDXL"):
        begin_lora(weights(), str(tmp_path / "broken.safetensors"), FIELD)
    with pytest.raises(InvalidConfig, match=r"there is no file /nowhere\.safetensors"):
        begin_lora(weights(), "/nowhere.safetensors", FIELD)


@pytest.mark.process
def test_a_run_starts_from_the_file_and_its_checkpoint_needs_it_no_more(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    theirs = weights()
    source = Path(written(theirs, "kohya", tmp_path))
    lora = {"rank": 3, "target_modules": list(TARGETS), "train": False, "pretrained": str(source)}
    changes = {"model": {"params": {"unet_config": {"train": False, "lora": lora}}}}
    assert runs.train_here(tiny.settings(data, changes), tmp_path / "output") == 0
    source.unlink()
    kept = sample.load(tmp_path / "output" / "checkpoint-3").model.lora
    assert kept is not None
    torch.testing.assert_close(products(kept), products(theirs))
