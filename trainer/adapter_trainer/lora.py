"""Low-rank weights in the UNet (LoRA, arXiv 2106.09685), made by peft, under the names that diffusers loads."""

from collections.abc import Mapping

import peft
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from adapter_api.networks import LoraConfig

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
        for name in self.layers:
            own, layer = name.replace("/", "."), self.layers[name]
            for kind, scale in (("A", 1.0), ("B", self.scale)):
                weight = averages.get(f"unet.{own}.lora_{kind}.{_ADAPTER}.weight", layer[kind].weight)  # type: ignore[index]
                found[f"unet.{own}.lora_{kind}.weight"] = (weight if scale == 1 else weight * scale).detach()
        return found
