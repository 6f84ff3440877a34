"""The rows that config.sampling draws: files found as those of the pairs file are, and checked before the first step."""

from pathlib import Path

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidData
from adapter_trainer.opening import open_picture
from adapter_trainer.sample import Row
from adapter_trainer.verify import read_embedding


def rows_to_draw(config: TrainingConfig) -> list[Row]:
    """PURE but for a look at the disk: sampling.rows with each file in data_root_path where it is there, else as it is given."""
    root, files = Path(config.data.params.data_root_path), _columns_of_files(config)
    return [
        {
            name: str(_found(root, value)) if name in files and isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in config.sampling.rows
    ]


def check_rows_to_draw(config: TrainingConfig) -> None:
    """Opens every file of sampling.rows, and counts its vectors' numbers.

    Args:
        config: with its columns' widths known.

    Raises:
        InvalidData: names the field, and what is wrong with its value.
    """
    columns = _columns(config)
    for index, row in enumerate(rows_to_draw(config)):
        for name, value in row.items():
            if name not in columns:
                continue
            try:
                _check(columns[name], value)
            except InvalidData as error:
                raise InvalidData(f"sampling.rows[{index}].{name}: {error}") from None


def _check(column: Column, value: int | str | tuple[float, ...]) -> None:
    if column.kind == "reference":
        open_picture(_file(value))
    elif column.kind == "label":
        if not isinstance(value, int):
            raise InvalidData(f"{value!r} is not a label; give its index")
        if column.width is not None and value >= column.width:
            raise InvalidData(f"label {value} is outside 0..{column.width - 1}")
    else:
        name, length = ("", len(value)) if isinstance(value, tuple) else _embedding(value)
        if column.width not in {None, length}:
            raise InvalidData(f"{name}has {length} numbers, not {column.width}")


def _embedding(value: int | str) -> tuple[str, int]:
    path = _file(value)
    return f"{path.name} ", len(read_embedding(path))


def _file(value: int | str | tuple[float, ...]) -> Path:
    if not isinstance(value, str):
        raise InvalidData(f"{value!r} is not a file; give its path")
    path = Path(value)
    if not path.is_file():
        raise InvalidData(f"{value} does not exist, neither in data.params.data_root_path nor from here; correct it")
    return path


def _found(root: Path, value: str) -> Path:
    path = root / value
    return path if path.is_file() else Path(value)


def _columns(config: TrainingConfig) -> dict[str, Column]:
    image = Column(name="image", kind="reference")
    return {"image": image, **{column.name: column for column in columns_of(config)}}


def _columns_of_files(config: TrainingConfig) -> set[str]:
    return {name for name, column in _columns(config).items() if column.kind != "label"}
