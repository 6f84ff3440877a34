"""Token conditioners for a diffusers pipeline: the label's and the embedding's tokens behind the text's.

    pipe = StableDiffusionXLPipeline.from_pretrained(...)
    pipe.load_ip_adapter("checkpoint-1000", subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None)
    inputs = load(Path("checkpoint-1000")).prompt_embeds(pipe, ["a caption"], {"label": one_hot})
    images = pipe(**inputs).images

Nothing else of a checkpoint is read, so this costs no second UNet; what `atj export` copies of one is enough.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from adapter_api.columns import column_of
from adapter_api.conditions import ModulePath, TokenConditionerConfig, conditioner_path
from adapter_api.data import Column
from adapter_api.document import InvalidDocument, read, validate
from adapter_api.layout import EXPORT_FILE, STATE_FILE, TRAINING_FILE
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.tensor_files import stored
from adapter_trainer.errors import DamagedCheckpoint, InvalidData
from adapter_trainer.model.part_weights import CONDITIONERS_PART
from adapter_trainer.model.projectors import PROJECTORS
from adapter_trainer.model.token_conditioners import TOKEN_CONDITIONERS, conditioning_sequence


class Conditioners:
    """The token conditioners of a checkpoint."""

    def __init__(self, modules: nn.ModuleDict, columns: dict[str, str], null_text: str) -> None:
        """`columns`: the data column of each module; `null_text`: what a dropped caption was in training."""
        self.modules = modules.eval()
        self.columns = columns
        self.null_text = null_text

    @torch.no_grad()
    def prompt_embeds(self, pipe: Any, prompts: Sequence[str], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments for the pipeline's call, both halves of guidance.

        Args:
            pipe: a StableDiffusionXLPipeline with text encoders.
            prompts: one for each picture, B of them.
            values: by data column, [B, width]; labels one-hot. A column that is not given takes its null.

        Raises:
            InvalidData: a column that no conditioner has, or values of another shape.
        """
        if unknown := sorted(set(values) - set(self.columns.values())):
            raise InvalidData(f"there is no column {unknown[0]!r}; they are: {', '.join(self.columns.values())}")
        negative = None if self.null_text == "zeros" else [""] * len(prompts)
        text, null_text, pooled, null_pooled = pipe.encode_prompt(
            prompt=list(prompts), negative_prompt=negative, do_classifier_free_guidance=True
        )
        return {
            "prompt_embeds": self._joined(text, values),
            "negative_prompt_embeds": self._joined(null_text, {}),
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": null_pooled,
        }

    def _joined(self, text: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        features, dropped = {}, {}
        for name, column in self.columns.items():
            width = _width(self.modules[name])
            given = values.get(column)
            if given is not None and tuple(given.shape) != (len(text), width):
                raise InvalidData(f"{column}: has the shape {tuple(given.shape)}, not {(len(text), width)}")
            own = next(self.modules[name].parameters())
            features[name] = (torch.zeros(len(text), width) if given is None else given).to(own)
            dropped[name] = torch.full((len(text),), given is None, device=own.device)
        joined = conditioning_sequence(
            text, self.modules, features, dropped, batch_size=len(text), token_dim=text.shape[-1], like=text
        )
        return joined.to(text.dtype)


def load(folder: Path | str, device: str | torch.device = "cpu") -> Conditioners:
    """The token conditioners of a checkpoint folder, or of its export, with averaged weights where an average was kept.

    Raises:
        DamagedCheckpoint: not a checkpoint, or not as it was written.
    """
    folder = Path(folder)
    if not ((folder / EXPORT_FILE).is_file() and not (folder / STATE_FILE).exists()):
        checkpoint_folder.check(folder)  # an export has no seals
    try:
        config = validate(TrainingConfig, read(folder / TRAINING_FILE))
        tensors = stored(folder)
        averages = {**tensors.part("ema")}
        averages |= {f"{CONDITIONERS_PART}.{name}": value for name, value in tensors.part(CONDITIONERS_PART).items()}
        modules, columns = nn.ModuleDict(), {}
        for name, settings in config.model.params.token_conditioners.present.items():
            path = conditioner_path(name)
            column = _column(config, path, settings)
            prefix = f"{path.module}."
            own = dict(tensors.part(f"model/{path.part}"))
            own |= {key.removeprefix(prefix): value for key, value in averages.items() if key.startswith(prefix)}
            token_dim = own["projector.norm.weight"].shape[0]
            projector = PROJECTORS[settings.projector.target](column.width or 0, token_dim, settings.projector.params)
            modules[name] = TOKEN_CONDITIONERS[name](projector, token_dim, settings.null_condition)
            modules[name].load_state_dict(own)
            columns[name] = column.name
    except (OSError, SafetensorError, InvalidDocument, RuntimeError, KeyError) as error:
        raise DamagedCheckpoint(f"{folder}: {error}") from None
    return Conditioners(modules.to(device), columns, config.model.params.text_config.null_condition)


def _column(config: TrainingConfig, path: ModulePath, settings: TokenConditionerConfig) -> Column:
    column = column_of(config, path, settings)
    if column is None:
        raise KeyError(f"{path.module} has no data column")
    return column


def _width(module: nn.Module) -> int:
    return int(module.projector.input_dim)  # type: ignore[union-attr,arg-type]
