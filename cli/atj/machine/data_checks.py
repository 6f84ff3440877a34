"""What validating and planning read of the data: the table, its columns and labels, the files of pictures to be drawn."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.document import Document, Fault, Location
from adapter_api.layers import cross_attention_layers, unmatched
from adapter_api.networks import UNetParams
from adapter_api.sources import is_stored, with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.data.pairs_table import Row, named_for_evaluation, read_table
from adapter_trainer.errors import InvalidData

EMBEDDED = ("embedding",)


@dataclass(frozen=True)
class Opened:
    """What was read of the data, without a picture being decoded."""

    rows: list[Row]
    widths: dict[str, int]
    """Of label and vector columns."""


def with_root(config: TrainingConfig, root: Path | None) -> TrainingConfig:
    """The configuration with its data in another folder."""
    if root is None:
        return config
    params = config.data.params.model_copy(update={"data_root_path": str(root)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})


def is_here(config: TrainingConfig) -> bool:
    """Whether the folder of the data is on this machine."""
    return Path(config.data.params.data_root_path).is_dir()


def open_data(config: TrainingConfig) -> Opened:
    """Reads the table; every path in it must exist.

    Raises:
        InvalidData: names every fault with file and line.
    """
    columns = columns_of(config)
    rows = read_table(config.data.params, columns)
    widths = {column.name: width for column in columns if (width := _width(column, rows)) is not None}
    for column in columns:
        if column.kind == "vector" and (odd := _odd_length(column.name, rows)) is not None:
            raise InvalidData(odd)
    return Opened(rows, widths)


def _width(column: Column, rows: list[Row]) -> int | None:
    if column.width is not None or column.kind not in {"label", "vector"}:
        return column.width
    values = [row.values[column.name] for row in rows]
    labels = [value for value in values if isinstance(value, int)]
    vector = next((value for value in values if isinstance(value, tuple)), None)
    return max(labels) + 1 if labels else len(vector) if vector is not None else None


def _odd_length(name: str, rows: list[Row]) -> str | None:
    lengths = {row.line: len(value) for row in rows if isinstance(value := row.values[name], tuple)}
    first = next(iter(lengths.values()), 0)
    line = next((line for line, length in lengths.items() if length != first), None)
    return None if line is None else f"line {line}: {name}: has {lengths[line]} numbers, the first line has {first}"


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


def row_faults(config: TrainingConfig, opened: Opened | None, document: Document, at: Location) -> Iterator[Fault]:
    """Values of sampling.rows that nothing can be drawn for: files that are not there, classes that the data do not have."""
    kinds = {"image": "reference", **{column.name: column.kind for column in columns_of(config)}}
    for index, row in enumerate(config.sampling.rows):
        for name, value in row.items():
            place = (*at, "sampling", "rows", index, name)
            if kinds.get(name) in {"reference", "embedding"} and isinstance(value, str) and opened is not None:
                if not file_of(config, value).is_file():
                    yield document.fault(
                        place,
                        f"{value[:200]} is no file, neither in data.params.data_root_path nor from where the command runs",
                    )
            elif kinds.get(name) == "label" and isinstance(value, int) and opened is not None:
                width = opened.widths.get(name)
                if width is not None and value >= width:
                    yield document.fault(place, f"label {value} is outside 0..{width - 1}, which the data have")


def layer_faults(config: TrainingConfig, document: Document, at: Location) -> Iterator[Fault]:
    """Patterns of adapters that match no layer of a UNet whose shape is known here."""
    shape = _unet_shape(config)
    if shape is None:
        return
    names = cross_attention_layers(shape)
    for name, adapter in config.model.params.adapters_config.items():
        for index, pattern in enumerate(adapter.layers):
            if (message := unmatched(pattern, names)) is not None:
                yield document.fault((*at, "model", "params", "adapters_config", name, "layers", index), message)


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
