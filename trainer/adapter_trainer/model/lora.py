"""Low-rank weights in the UNet (LoRA, arXiv 2106.09685), made by peft, under the names that others load."""

from collections.abc import Mapping

import peft
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from adapter_api.networks import LoraConfig
from adapter_trainer.model.original_names import original_name

_ADAPTER = "default"
"""What peft calls the only set of low-rank weights here."""


class LoraWeights(nn.Module):
    """A UNet's low-rank weights, seen as a part by themselves; the UNet stays their owner."""

    def __init__(self, unet: UNet2DConditionModel, config: LoraConfig) -> None:
        """Puts them into the UNet, which they do not change until they are trained.

        Raises:
            ValueError: a target that is no layer of the UNet.
        """
        super().__init__()
        self.rank = config.rank
        self.unet_config = unet.config
        self.layers_per_block, self.attention = _shape_of(unet)
        self.scale = (config.alpha or config.rank) / config.rank
        unet.add_adapter(
            peft.LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha or config.rank,  # type: ignore[arg-type]  # a fraction is as good
                lora_dropout=config.dropout,
                target_modules=list(config.target_modules),
                init_lora_weights="gaussian",
            ),
            adapter_name=_ADAPTER,
        )
        self.layers = nn.ModuleDict(
            {
                name.replace(".", "/"): nn.ModuleDict(
                    {"A": layer.lora_A[_ADAPTER], "B": layer.lora_B[_ADAPTER], "dropout": layer.lora_dropout[_ADAPTER]}
                )
                for name, layer in unet.named_modules()
                if isinstance(layer, LoraLayer)
            }
        )

    def to_file(self, averages: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `load_lora_weights` reads: names as peft gives them, without the set's.

        Alpha would have to stand in the file's metadata, which converters drop; so B is scaled by it instead.

        Args:
            averages: by parameter of the model; what is not among them is taken as it is.
        """
        found = {}
        for name, (down, up) in self._scaled(averages).items():
            found[f"unet.{name}.lora_A.weight"], found[f"unet.{name}.lora_B.weight"] = down, up
        return found

    def to_kohya(self, averages: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same as kohya's scripts name them, which ComfyUI and others load.

        `alpha` is the rank, which multiplies by 1: a program that knows no alpha draws the same as one that does.
        """
        found = {}
        for name, (down, up) in self._scaled(averages).items():
            own = f"lora_unet_{original_name(name, self.layers_per_block, self.attention).replace('.', '_')}"
            found[f"{own}.lora_down.weight"], found[f"{own}.lora_up.weight"] = down, up
            found[f"{own}.alpha"] = torch.tensor(float(self.rank))
        return found

    def _scaled(self, averages: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each layer the two weights, with B multiplied by alpha / rank."""
        found = {}
        for name in self.layers:
            own, layer = name.replace("/", "."), self.layers[name]
            down, up = (
                averages.get(f"unet.{own}.lora_{kind}.{_ADAPTER}.weight", layer[kind].weight)  # type: ignore[index]
                for kind in ("A", "B")
            )
            found[own] = down.detach(), (up if self.scale == 1 else up * self.scale).detach()
        return found


def _shape_of(unet: UNet2DConditionModel) -> tuple[list[int], list[bool]]:
    """Residual layers of each block on the way down, and whether each on the way up has attention."""
    layers, blocks = unet.config.layers_per_block, len(unet.config.block_out_channels)
    each = [layers] * blocks if isinstance(layers, int) else list(layers)
    return each, ["CrossAttn" in kind for kind in unet.config.up_block_types]
