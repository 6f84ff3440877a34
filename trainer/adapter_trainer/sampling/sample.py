"""Draws pictures from a model: any condition, classifier-free guidance against the nulls that training used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from adapter_api.columns import columns_of
from adapter_api.document import InvalidDocument, read, validate
from adapter_api.layout import TRAINING_FILE
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.tensor_files import stored
from adapter_trainer.data import order
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.data.images import reference_image
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.order import Place
from adapter_trainer.data.verify import read_embedding
from adapter_trainer.errors import DamagedCheckpoint, IncompatibleCheckpoint, InvalidData
from adapter_trainer.model import registry, sources, weights
from adapter_trainer.model.adapter_model import AdapterModel, Conditions
from adapter_trainer.model.precision import cast_frozen

Row = Mapping[str, int | str | tuple[float, ...]]
"""Condition values by data column (`caption` for text); what is not given takes its null."""


class Sampler:
    """A model that draws."""

    def __init__(self, model: AdapterModel, config: TrainingConfig, device: torch.device) -> None:
        self.model = model
        self.config = config
        self.device = device
        self.dtype = registry.WEIGHT_TYPES[config.optimization.mixed_precision]

    def draw(
        self,
        rows: Sequence[Row],
        images_per_row: int,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Draws `images_per_row` pictures for every row, a row at a time; what is not given comes from config.sampling.

        Returns:
            [rows * images_per_row, C, H, W] in 0..1, row by row.

        Raises:
            InvalidData: a value that does not fit its column.
        """
        pictures = []
        for index, row in enumerate(rows):
            places = [Place(index, column) for column in range(images_per_row)]
            pictures.append(
                self.draw_at([row] * images_per_row, places, steps=steps, guidance_scale=guidance_scale, seed=seed)
            )
        return torch.cat(pictures)

    @torch.no_grad()
    def draw_at(
        self,
        rows: Sequence[Row],
        places: Sequence[Place],
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Draws one picture for each row, all at once; pictures of the same seed and place begin with the same noise.

        Returns:
            [rows, C, H, W] in 0..1.

        Raises:
            InvalidData: a value that does not fit its column.
        """
        sampling = self.config.sampling
        seed = sampling.seed if seed is None else seed
        shape = self.model.latent_shape(self.config.data.params.resolution)
        noise = np.stack(
            [order.generator_at(seed, place, "picture").standard_normal(shape, dtype=np.float32) for place in places]
        )
        scale = sampling.guidance_scale if guidance_scale is None else guidance_scale
        return self._draw(rows, torch.from_numpy(noise).to(self.device), steps or sampling.steps, scale)

    def _draw(self, rows: Sequence[Row], noise: Tensor, steps: int, scale: float) -> Tensor:
        nulls: list[Row] = [{}] * len(noise) if scale != 1 else []
        conditions = self._conditions([*rows, *nulls])
        name = self.config.sampling.scheduler
        scheduler = registry.SCHEDULERS[name](**scheduler_settings(self.config, name))
        scheduler.set_timesteps(steps, device=self.device)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            doubled = torch.cat([scaled, scaled]) if scale != 1 else scaled
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                prediction = self.model(doubled, timestep.expand(len(doubled)), conditions).float()
            if scale != 1:
                conditional, null = prediction.chunk(2)
                prediction = null + scale * (conditional - null)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return self.model.first_stage.decode(latents.float()) / 2 + 0.5

    def _conditions(self, rows: list[Row]) -> Conditions:
        resolution, tokenizers = self.config.data.params.resolution, self.model.tokenizers
        dropped, columns = {}, {}
        known = {"caption", "image", *(column.name for column in columns_of(self.config))}
        for row in rows:
            if unknown := sorted(set(row) - known):
                raise InvalidData(f"there is no condition {unknown[0]!r}; this model knows: {', '.join(sorted(known))}")
        for path, column in self.model.columns.items():
            dropped[path.condition] = torch.tensor([column.name not in row for row in rows], device=self.device)
            if column.name not in columns:
                values = [self._value(column.name, column.width, row.get(column.name)) for row in rows]
                columns[column.name] = torch.stack(values).to(self.device)
        dropped["text"] = torch.tensor(["caption" not in row for row in rows], device=self.device)
        captions = [str(row.get("caption", "")) for row in rows]
        time_ids = torch.tensor([resolution, resolution, 0, 0, resolution, resolution], dtype=torch.float32)
        return Conditions(
            columns=columns,
            dropped=dropped,
            time_ids=time_ids.expand(len(rows), 6).to(self.device),
            input_ids=[] if tokenizers is None else [ids.to(self.device) for ids in tokenizers(captions)],
            null_ids=[] if tokenizers is None else [ids.to(self.device) for ids in tokenizers([""])],
            keeps_encoded=True,
        )

    def _value(self, name: str, width: int, value: Any) -> Tensor:
        if width == 0:
            size = self.model.image_encoder.image_size if self.model.image_encoder is not None else 224
            if value is None:
                return torch.zeros(3, size, size)
            picture = open_picture(file_of(self.config, str(value)), self.config.data.params.background)
            return torch.from_numpy(reference_image(picture, size))
        if value is None:
            return torch.zeros(width)
        if (label := self._label(name, value)) is not None:
            value = label
            if not 0 <= value < width:
                raise InvalidData(f"{name}: label {value} is outside 0..{width - 1}")
            return torch.nn.functional.one_hot(torch.tensor(value), width).float()
        is_file = isinstance(value, str)
        vector = torch.from_numpy(read_embedding(file_of(self.config, value))) if is_file else torch.tensor(value)
        if len(vector) != width:
            raise InvalidData(f"{name}: has {len(vector)} numbers, not {width}")
        return vector.float()

    def _label(self, name: str, value: Any) -> int | None:
        column = next((column for column in columns_of(self.config) if column.name == name), None)
        return None if column is None else column.class_of(value)


def load(folder: Path, device: str | None = None, models: Path | None = None) -> Sampler:
    """A sampler from a checkpoint folder, with the averaged weights if the run kept an average.

    Args:
        folder: of the checkpoint.
        device: By default a GPU, if there is one.
        models: Folder that models have been staged to from object storage.

    Raises:
        InvalidConfig: a model that has not been staged, or cannot be loaded.
        DamagedCheckpoint: not a checkpoint, or not as it was written.
        IncompatibleCheckpoint: its weights do not fit its configuration.
    """
    checkpoint_folder.check(folder)
    try:
        config = validate(TrainingConfig, read(folder / TRAINING_FILE))
    except InvalidDocument as error:
        raise DamagedCheckpoint(f"{folder}: {error}") from None
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = _computable(config, chosen)
    # What conditions began with does not matter any more: the checkpoint has them.
    model = AdapterModel.of(sources.without_beginnings(sources.with_local_models(config, models)))
    cast_frozen(model, registry.WEIGHT_TYPES[config.optimization.mixed_precision])
    try:
        parts, averages = weights.weights_in(model, stored(folder).part)
        for name, module in model.saved_parts().items():
            module.load_state_dict(parts[name])
        parameters = dict(model.named_parameters())
        for name, value in averages.items():
            parameters[name].data.copy_(value)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{folder}: {error}") from None
    except (RuntimeError, KeyError) as error:
        raise IncompatibleCheckpoint(f"{folder}: its weights do not fit its configuration: {error}") from None
    return Sampler(model.to(chosen).eval(), config, chosen)


def _computable(config: TrainingConfig, device: torch.device) -> TrainingConfig:
    """In the precision that it was trained in, where the device computes in it; else in float32."""
    precision = config.optimization.mixed_precision
    if device.type != "cpu" or precision == "no":
        return config
    if precision == "bf16" and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001 - there is no public way to ask
        return config
    optimization = config.optimization.model_copy(update={"mixed_precision": "no"})
    return config.model_copy(update={"optimization": optimization})


def scheduler_settings(config: TrainingConfig, name: str) -> dict[str, Any]:
    """Arguments of the scheduler of that name that draws as the configuration trains."""
    settings = config.model.params.scheduler_config.params.filled.model_dump()
    if name == "DDIMScheduler":
        # Clipping to -1..1 is right for pixels alone: latents have no such range.
        settings |= {
            "clip_sample": config.model.params.first_stage_config.target == "Pixels",
            "set_alpha_to_one": False,
        }
    return settings
