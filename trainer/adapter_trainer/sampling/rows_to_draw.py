"""What config.sampling draws is checked before the first step."""

from pathlib import Path

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.verify import read_embedding
from adapter_trainer.errors import InvalidData


def check_rows_to_draw(config: TrainingConfig) -> None:
    """Opens every file of sampling.rows and sampling.columns, and counts the numbers of vectors.

    Args:
        config: with its columns' widths known.

    Raises:
        InvalidData: names the field, and what is wrong with its value.
    """
    columns = _columns(config)
    given = [(f"rows[{index}]", row) for index, row in enumerate(config.sampling.rows)]
    given += [(f"columns[{index}]", row) for index, row in enumerate(config.sampling.columns)]
    for place, row in given:
        for name, value in row.items():
            if name not in columns:
                continue
            try:
                _check(config, columns[name], value)
            except InvalidData as error:
                raise InvalidData(f"sampling.{place}.{name}: {error}") from None


def _check(config: TrainingConfig, column: Column, value: int | str | tuple[float, ...]) -> None:
    if column.kind == "reference":
        open_picture(_file(config, value))
    elif column.kind == "label":
        label = column.class_of(value)
        if label is None:
            raise InvalidData(f"{value!r} is not a label; give its index{', or its name' if column.names else ''}")
        if column.width is not None and label >= column.width:
            raise InvalidData(f"label {label} is outside 0..{column.width - 1}")
    else:
        name, length = ("", len(value)) if isinstance(value, tuple) else _embedding(config, value)
        if column.width not in {None, length}:
            raise InvalidData(f"{name}has {length} numbers, not {column.width}")


def _embedding(config: TrainingConfig, value: int | str) -> tuple[str, int]:
    path = _file(config, value)
    return f"{path.name} ", len(read_embedding(path))


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
