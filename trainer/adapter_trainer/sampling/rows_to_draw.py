"""What config.sampling draws is checked: by the trainer before the first step, by `atj validate` before anything starts.

Pillow and NumPy are imported where a file is opened: without them everything else can still be checked.
"""

from collections.abc import Iterator
from pathlib import Path

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.errors import InvalidData

Field = tuple[str | int, ...]
"""Path of a value below `sampling`, such as rows, 1, label."""


def check_rows_to_draw(config: TrainingConfig) -> None:
    """Opens every file of sampling.rows and sampling.columns, and counts the numbers of vectors.

    Args:
        config: with its columns' widths known.

    Raises:
        InvalidData: names every field whose value cannot be drawn, and what is wrong with it.
    """
    if found := [f"sampling.{kind}[{index}].{name}: {told}" for (kind, index, name), told in faults_of_rows(config)]:
        raise InvalidData("\n".join(found))


def faults_of_rows(config: TrainingConfig, *, opens_files: bool = True) -> Iterator[tuple[Field, str]]:
    """Values of sampling.rows and sampling.columns that nothing can be drawn for, and what is wrong with each.

    Args:
        config: with its columns' widths known.
        opens_files: whether files are decoded; otherwise they need only be there.
    """
    columns = _columns(config)
    for kind, rows in (("rows", config.sampling.rows), ("columns", config.sampling.columns)):
        for index, row in enumerate(rows):
            for name, value in row.items():
                if name not in columns:
                    continue
                try:
                    _check(config, columns[name], value, opens_files=opens_files)
                except InvalidData as error:
                    yield (kind, index, name), str(error)


def _check(config: TrainingConfig, column: Column, value: int | str | tuple[float, ...], *, opens_files: bool) -> None:
    if column.kind == "label":
        label = column.class_of(value)
        if label is None:
            raise InvalidData(f"{value!r} is not a label; give its index{', or its name' if column.names else ''}")
        if column.width is not None and label >= column.width:
            raise InvalidData(f"label {label} is outside 0..{column.width - 1}")
    elif column.kind != "reference" and isinstance(value, tuple):
        _check_length(column, "", len(value))
    else:
        path = _file(config, value)
        if opens_files:
            _open(column, path)


def _open(column: Column, path: Path) -> None:
    if column.kind == "reference":
        from adapter_trainer.data.opening import open_picture

        open_picture(path)
    else:
        from adapter_trainer.data.verify import read_embedding

        _check_length(column, f"{path.name} ", len(read_embedding(path)))


def _check_length(column: Column, name: str, length: int) -> None:
    if column.width not in {None, length}:
        raise InvalidData(f"{name}has {length} numbers, not {column.width}")


def _file(config: TrainingConfig, value: int | str | tuple[float, ...]) -> Path:
    if not isinstance(value, str):
        raise InvalidData(f"{value!r} is not a file; give its path")
    path = file_of(config, value)
    if not path.is_file():
        raise InvalidData(f"{value} does not exist, neither in data.params.data_root_path nor from here; correct it")
    return path


def _columns(config: TrainingConfig) -> dict[str, Column]:
    image = Column(name="image", kind="reference")
    return {"image": image, **{column.name: column for column in columns_of(config)}}
