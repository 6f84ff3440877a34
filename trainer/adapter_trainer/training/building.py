"""The model as a run trains it: built or loaded, in its precision, on its device; what would go wrong later is told now."""

from collections.abc import Callable
from pathlib import Path

import torch

from adapter_api.columns import read_by_model
from adapter_api.notes import notes_on
from adapter_api.training import TrainingConfig
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import compute, registry, sources
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.precision import cast_frozen


def model_of(
    config: TrainingConfig,
    models: Path | None,
    rows: list[Row],
    device: torch.device,
    processes: Processes,
    show: Callable[[str], None],
) -> AdapterModel:
    """Builds it; collective.

    Args:
        config: With the widths of columns known.
        models: Folder that models have been staged to from object storage.
        rows: The samples.
        device: Where it goes.
        processes: Of this run.
        show: Takes what is worth knowing.

    Raises:
        InvalidConfig: a part that cannot be built or loaded, does not fit the others, or overflows.
    """
    for note in notes_on(config):
        show(note)
    model = AdapterModel.of(sources.with_local_models(config, models))
    cast_frozen(model, registry.WEIGHT_TYPES[config.optimization.mixed_precision])
    model.to(device)
    _check_overflow(model, config)
    _tell_cut(config, rows, model, processes, show)
    for index, row in enumerate(config.sampling.rows):
        for name in sorted(set(row) - set(read_by_model(config))):
            show(f"sampling.rows[{index}].{name}: no part of the model reads it; the row is drawn without")
    compute.tune(model, device)
    return model


@torch.no_grad()
def _check_overflow(model: AdapterModel, config: TrainingConfig) -> None:
    """A first stage in half precision is tried on black, white and noise: SDXL's own overflows float16."""
    stage, side = model.first_stage, config.data.params.resolution
    if not isinstance(stage, Autoencoder) or stage.dtype != torch.float16:
        return
    generator = torch.Generator().manual_seed(config.seed)
    channels = int(stage.vae.config.in_channels)
    noise = torch.rand(channels, side, side, generator=generator) * 2 - 1
    for image in (torch.ones_like(noise), -torch.ones_like(noise), noise):
        if not stage.posterior(image[None].to(next(stage.parameters()).device)).isfinite().all():
            raise InvalidConfig(
                "model.params.first_stage_config.params.force_upcast: is false, but this autoencoder overflows float16; "
                "set it to true, choose mixed_precision bf16, or name weights that were made for float16 in "
                "first_stage_config.pretrained"
            )


def _tell_cut(
    config: TrainingConfig, rows: list[Row], model: AdapterModel, processes: Processes, show: Callable[[str], None]
) -> None:
    """Captions are cut at the encoders' length, as pipelines do it; that some were is worth knowing. Collective."""
    if model.tokenizers is None or config.data.params.verify == "none":
        return
    mine = rows[processes.rank :: processes.world_size]
    captions = [(caption, row.line) for row in mine for caption in row.captions]
    cut = {captions[index][1] for index in model.tokenizers.cut([caption for caption, _ in captions])}
    if lines := sorted({line for found in processes.gather(cut) for line in found}):
        limit = min(tokenizer.model_max_length for tokenizer in model.tokenizers.tokenizers)
        show(
            f"{config.data.params.pairs_file_path}: {len(lines)} of {len({row.line for row in rows})} captions are longer than the {limit} "
            f"tokens that the text encoder reads, and are cut there; the first is on line {lines[0]}"
        )
