"""Checks what the pairs file points at before training starts, and reads the widths that the configuration leaves open."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from adapter_trainer.data.column_widths import width_of
from adapter_trainer.data.opening import open_picture, read_header
from adapter_trainer.data.pairs_table import Faults, Row
from adapter_trainer.errors import InvalidData

THREADS = 8
ROWS_AT_ONCE = 4096


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


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def check_rows(rows: list[Row], columns: tuple[Column, ...], level: str, table: Path) -> set[Path]:
    """Checks the files that rows point at; `level` is data.params.verify.

    Returns:
        The pictures that have further frames or pages.

    Raises:
        InvalidData: names every fault with its line.
    """
    if level == "none":
        return set()
    faults = Faults(table)
    named = {column.name: column for column in columns}
    animated = set[Path]()

    def check(row: Row) -> list[str]:
        found = []
        for name, value in {"image": row.image, **row.values}.items():
            if not isinstance(value, Path):
                continue
            try:
                if name in named and named[name].kind == "embedding":
                    _check_width(value, named[name].width)
                elif check_picture(value, level):
                    animated.add(value)
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
    return animated


def check_picture(path: Path, level: str) -> bool:
    """Opens a picture, and decodes it where `level` is decode; returns whether it has further frames or pages.

    Raises:
        InvalidData: it cannot be read.
    """
    if level == "decode":
        open_picture(path)
    return read_header(path.name, path).has_frames


def _check_width(path: Path, width: int | None) -> None:
    found = len(read_embedding(path))
    if width not in {None, found}:
        raise InvalidData(f"{path.name} has {found} numbers, not {width}")


def resolve_widths(config: TrainingConfig, rows: list[Row], table: Path) -> TrainingConfig:
    """The configuration with every column declared and its width known; widths left open are read off the data.

    Raises:
        InvalidData: rows of one vector column have different lengths, or the first embedding cannot be read.
    """
    resolved = [column.model_copy(update={"width": _width_of(column, rows, table)}) for column in columns_of(config)]
    params = config.data.params.model_copy(update={"columns": tuple(resolved)})
    return config.model_copy(update={"data": config.data.model_copy(update={"params": params})})


def _width_of(column: Column, rows: list[Row], table: Path) -> int | None:
    width = width_of(column, rows, table)
    if width is not None or column.kind != "embedding" or not rows:
        return width
    first = rows[0].values[column.name]
    try:
        return len(read_embedding(first)) if isinstance(first, Path) else None
    except InvalidData as error:
        raise InvalidData(f"{table}:{rows[0].line}: {column.name}: {error}") from None
