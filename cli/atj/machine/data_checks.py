"""What validating and planning read of the data: the table, its columns and labels, the files of pictures to be drawn."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapter_api.columns import columns_of
from adapter_api.conditions import adapter_path
from adapter_api.data import Column
from adapter_api.document import Document, Fault, Location
from adapter_api.layers import cross_attention_layers, unmatched
from adapter_api.networks import UNetParams
from adapter_api.sources import is_stored, with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.data.column_widths import width_of
from adapter_trainer.data.pairs_table import Row, named_for_evaluation, read_table
from adapter_trainer.sampling.rows_to_draw import faults_of_rows

MOST_OPENED = 1000
"""Samples whose files are opened: all of a folder that someone looks after by hand, in seconds."""


@dataclass(frozen=True)
class Opened:
    """What was read of the data."""

    rows: list[Row]
    config: TrainingConfig
    """With the widths of its columns, as far as they are known here."""
    checked: int
    """Samples whose files were opened, the first ones."""

    @property
    def widths(self) -> dict[str, int]:
        """By column."""
        return {column.name: column.width for column in columns_of(self.config) if column.width is not None}


def with_root(config: TrainingConfig, root: Path | None) -> TrainingConfig:
    """The configuration with its data in another folder."""
    if root is None:
        return config
    params = config.data.params.model_copy(update={"data_root_path": str(root)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})


def is_here(config: TrainingConfig) -> bool:
    """Whether the folder of the data is on this machine."""
    return Path(config.data.params.data_root_path).is_dir()


def open_data(config: TrainingConfig, *, opens_files: bool) -> Opened:
    """Reads the table, in which every path must exist, and opens the files of the first samples.

    Args:
        config: with the folder of its data.
        opens_files: whether pictures and embeddings are opened, as far as data.params.verify wants it; takes Pillow and NumPy.

    Raises:
        InvalidData: names every fault with file and line.
    """
    params, columns = config.data.params, columns_of(config)
    rows = read_table(params, columns)
    table = Path(params.data_root_path) / params.pairs_file_path
    if not opens_files:
        known = [column.model_copy(update={"width": width_of(column, rows, table)}) for column in columns]
        return Opened(rows, _with_columns(config, known), checked=0)
    from adapter_trainer.data.verify import check_rows, resolve_widths  # brings NumPy and Pillow

    config = resolve_widths(config, rows, table)
    some = rows[:MOST_OPENED]
    check_rows(some, columns_of(config), params.verify, table)
    return Opened(rows, config, checked=0 if params.verify == "none" else len(some))


def can_open_files() -> bool:
    """Whether the packages are here that open pictures and embeddings."""
    return all(find_spec(package) is not None for package in ("PIL", "numpy", "safetensors"))


def _with_columns(config: TrainingConfig, columns: list[Column]) -> TrainingConfig:
    params = config.data.params.model_copy(update={"columns": tuple(columns)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})


def held_out_faults(config: TrainingConfig) -> None:
    """Reads the table of the evaluation.

    Raises:
        InvalidData: names every fault with file and line.
    """
    if config.evaluation is None:
        return
    params = config.data.params.model_copy(update={"pairs_file_path": config.evaluation.pairs_file_path})
    with named_for_evaluation():
        read_table(params, columns_of(config))


def row_faults(opened: Opened, document: Document, at: Location, *, opens_files: bool) -> Iterator[Fault]:
    """Values of sampling.rows and sampling.columns that nothing can be drawn for, as the trainer would tell them."""
    for field, message in faults_of_rows(opened.config, opens_files=opens_files):
        yield document.fault((*at, "sampling", *field), message)


def layer_faults(config: TrainingConfig, document: Document, at: Location) -> Iterator[Fault]:
    """Patterns of adapters that match no layer of a UNet whose shape is known here."""
    shape = _unet_shape(config)
    if shape is None:
        return
    names = cross_attention_layers(shape)
    for name, adapter in config.model.params.adapters_config.items():
        for index, pattern in enumerate(adapter.layers):
            if (message := unmatched(pattern, names)) is not None:
                yield document.fault((*at, "model", "params", *adapter_path(name).location, "layers", index), message)


def _unet_shape(config: TrainingConfig) -> UNetParams | None:
    """Of one that is built, or that lies in a folder here; of others, SDXL's, which published ones have."""
    unet = with_pipeline_sources(config.model.params).unet_config
    if unet.pretrained is None:
        return unet.params
    if is_stored(unet.pretrained) or not (folder := Path(unet.pretrained) / (unet.subfolder or "")).is_dir():
        return unet.params if "stable-diffusion-xl" in unet.pretrained else None
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = {name: found[name] for name in UNetParams.model_fields if name in found}
        return UNetParams.model_validate(known)
    except (OSError, ValueError, ValidationError, TypeError, RecursionError):
        return None  # loading it says what is wrong
