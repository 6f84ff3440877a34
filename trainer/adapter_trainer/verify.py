"""Checks what the pairs file points at before training starts, and reads the widths that the configuration leaves open."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidData
from adapter_trainer.table import Faults, Row

THREADS = 8
ROWS_AT_ONCE = 4096

MAX_PIXELS = 2**28
"""A picture that claims more is refused rather than decoded: 3 bytes a pixel would be 0.75 GiB."""
Image.MAX_IMAGE_PIXELS = None  # ours is checked instead, and Pillow would only warn up to twice its own


def read_embedding(path: Path) -> NDArray[np.float32]:
    """The vector in a .npy or .safetensors file, shape [width].

    Raises:
        InvalidData: not such a file, not one vector of finite numbers.
    """
    try:
        if path.suffix == ".npy":
            array: NDArray[Any] = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                if len(names) != 1:
                    raise InvalidData(f"{path.name} holds {len(names)} tensors; one is expected")
                tensor = file.get_tensor(names[0])
                # NumPy has no bfloat16 and no 8-bit floats.
                array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        else:
            raise InvalidData(f"{path.name} is neither .npy nor .safetensors")
    except (ValueError, TypeError, OSError, EOFError, MemoryError, SafetensorError) as error:
        raise InvalidData(f"{path.name} cannot be read as an embedding: {_short(error)}") from None
    if array.size == 0 or array.size != max(array.shape, default=0) or array.dtype.kind not in "fiu":
        what = f"{path.name} has shape {array.shape} of {array.dtype}; one vector of numbers is expected"
        unread = "; save it as float32, or as .safetensors" if array.dtype.kind == "V" else ""
        raise InvalidData(what + unread)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told below
        vector: NDArray[np.float32] = array.reshape(-1).astype(np.float32)
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
            _check_size(path, image)
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InvalidData(f"{path.name} cannot be decoded: {_short(error)}; replace or remove it") from None


def open_header(path: Path) -> None:
    """Reads only as much of an image as says what it is.

    Raises:
        InvalidData: not an image, or too large to be one.
    """
    try:
        with Image.open(path) as image:
            _check_size(path, image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InvalidData(f"{path.name} cannot be opened: {_short(error)}; replace or remove it") from None


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InvalidData(
            f"{path.name} claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}; shrink it"
        )


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def check_rows(rows: list[Row], columns: tuple[Column, ...], level: str, table: Path) -> None:
    """Checks the files that rows point at; `level` is data.params.verify.

    Raises:
        InvalidData: names every fault with its line.
    """
    if level == "none":
        return
    faults = Faults(table)
    named = {column.name: column for column in columns}
    check_image = open_image if level == "decode" else open_header

    def check(row: Row) -> list[str]:
        found = []
        for name, value in {"image": row.image, **row.values}.items():
            if not isinstance(value, Path):
                continue
            try:
                if name in named and named[name].kind == "embedding":
                    _check_width(value, named[name].width)
                else:
                    check_image(value)
            except InvalidData as error:
                found.append(f"{name}: {error}")
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            for row, found in zip(some, pool.map(check, some), strict=True):
                for message in found:
                    faults.add(row.line, message)
    faults.raise_if_any()


def _check_width(path: Path, width: int | None) -> None:
    found = len(read_embedding(path))
    if width not in {None, found}:
        raise InvalidData(f"{path.name} has {found} numbers, not {width}")


def resolve_widths(config: TrainingConfig, rows: list[Row], table: Path) -> TrainingConfig:
    """The configuration with every column declared and its width known; widths left open are read off the data.

    Raises:
        InvalidData: rows of one vector column have different lengths, or the first embedding cannot be read.
    """
    resolved = [
        column.model_copy(update={"width": _width_of(column, rows, table) if column.width is None else column.width})
        for column in columns_of(config)
    ]
    params = config.data.params.model_copy(update={"columns": tuple(resolved)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})


def _width_of(column: Column, rows: list[Row], table: Path) -> int | None:
    width: int | None = None
    for row in rows:
        value = row.values[column.name]
        if isinstance(value, int):
            width = max(width or 0, value + 1)
        elif isinstance(value, tuple):
            width = width or len(value)
            if len(value) != width:
                message = f"has {len(value)} numbers, line {rows[0].line} has {width}"
                raise InvalidData(f"{table}:{row.line}: {column.name}: {message}")
        elif column.kind == "embedding":
            try:
                return len(read_embedding(value))
            except InvalidData as error:
                raise InvalidData(f"{table}:{row.line}: {column.name}: {error}") from None
    return width
