"""Checks what the pairs file points at before training starts, and reads the widths that the configuration leaves open."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open

from adapter_api.columns import columns_of
from adapter_api.training import Column, TrainingConfig
from adapter_trainer.errors import InvalidData
from adapter_trainer.table import Faults, Row

THREADS = 8

# A picture that claims more pixels than this is refused rather than decoded: 3 bytes a pixel would be 0.75 GiB.
Image.MAX_IMAGE_PIXELS = 2**28


def read_embedding(path: Path) -> NDArray[np.float32]:
    """The vector in a .npy or .safetensors file, shape [width].

    Raises:
        InvalidData: not such a file, not one vector of finite numbers.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
                if len(names) != 1:
                    raise InvalidData(f"{path.name} holds {len(names)} tensors; one is expected")
                array = file.get_tensor(names[0])
        else:
            raise InvalidData(f"{path.name} is neither .npy nor .safetensors")
    except (ValueError, OSError, EOFError, SafetensorError) as error:
        raise InvalidData(f"{path.name} cannot be read as an embedding: {error}") from None
    vector = array.squeeze()
    if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.number):
        raise InvalidData(f"{path.name} has shape {array.shape} of {array.dtype}; one vector of numbers is expected")
    vector = vector.astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidData(f"{path.name} contains NaN or infinity")
    return vector


def open_image(path: Path) -> Image.Image:
    """A decoded image.

    Raises:
        InvalidData: not an image, cut short, or too large to be one.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidData(f"{path.name} cannot be decoded: {_short(error)}; replace or remove it") from None


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].replace(str(getattr(error, "filename", None) or "\0"), "the file")[:200]


def check_rows(rows: list[Row], columns: tuple[Column, ...], level: str, table: Path) -> list[str]:
    """Faults of the files that rows point at; `level` is data.params.verify."""
    faults = Faults(table)
    kinds = {column.name: column for column in columns}

    def check(row: Row) -> list[tuple[int, str]]:
        found = []
        images = [("image", row.image)]
        images += [(name, value) for name, value in row.values.items() if kinds[name].kind == "reference"]  # type: ignore[misc]
        try:
            for name, path in images:
                if level == "decode":
                    open_image(path)
                elif level == "open":
                    with Image.open(path):
                        pass
        except (InvalidData, OSError) as error:
            found.append((row.line, f"{name}: {error}"))
        for name, value in row.values.items():
            if isinstance(value, Path) and kinds[name].kind == "embedding" and level != "none":
                try:
                    width = len(read_embedding(value))
                except InvalidData as error:
                    found.append((row.line, f"{name}: {error}"))
                    continue
                if kinds[name].width not in (None, width):
                    found.append((row.line, f"{name}: {value.name} has {width} numbers, not {kinds[name].width}"))
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(check, rows, chunksize=64):
            for line, message in found:
                faults.add(line, message)
    return faults.found


def resolve_widths(config: TrainingConfig, rows: list[Row]) -> TrainingConfig:
    """The configuration with every column declared and its width known; widths left open are read off the data.

    Raises:
        InvalidData: rows of one vector column have different lengths.
    """
    resolved = []
    for column in columns_of(config):
        width = column.width
        values = [row.values[column.name] for row in rows]
        if width is None and column.kind == "label":
            width = max(value for value in values if isinstance(value, int)) + 1
        elif width is None and column.kind == "vector":
            widths = {len(value) for value in values if isinstance(value, tuple)}
            if len(widths) > 1:
                raise InvalidData(f"data column {column.name!r}: rows have {min(widths)} to {max(widths)} numbers")
            width = widths.pop()
        elif width is None and column.kind == "embedding":
            first = next(value for value in values if isinstance(value, Path))
            width = len(read_embedding(first))
        resolved.append(column.model_copy(update={"width": width}))
    params = config.data.params.model_copy(update={"columns": tuple(resolved)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})
