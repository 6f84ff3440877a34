"""PURE: what users ask for on the command line -> the rows of condition values that a sampler draws."""

from collections.abc import Sequence
from pathlib import Path

from adapter_api.base import MAX_INT
from adapter_api.columns import BUILT_IN, column_of, columns_of, read_by_model
from adapter_api.conditions import conditioner_path
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from atj.errors import refusal

Value = int | str | tuple[float, ...]
Row = dict[str, Value]


def rows_of(
    config: TrainingConfig, labels: Sequence[str] = (), conditions: Sequence[str] = (), prompt: str | None = None
) -> list[Row]:
    """One row for each label, each with all other conditions too.

    Without any condition: a row for each class of label_to_token, else config.sampling.rows, else one without condition.

    Args:
        config: The checkpoint's, with widths resolved.
        labels: Values of the column that feeds label_to_token, as numbers or by name.
        conditions: name=value, by data column.
        prompt: The caption.

    Raises:
        CommandError: a condition that the model does not have, or a value that does not fit its column.
    """
    shared = dict(_condition(config, text) for text in conditions)
    if prompt is not None:
        if "caption" not in read_by_model(config):
            raise refusal(f"--prompt: this model has no text encoders; {_what_it_reads(config)}")
        shared["caption"] = prompt
    column = _label_column(config)
    if not labels and not shared:
        if column is not None and column.kind == "label" and column.width is not None:
            return [{column.name: label} for label in range(column.width)]
        known = read_by_model(config)
        return [{name: value for name, value in row.items() if name in known} for row in config.sampling.rows] or [{}]
    if not labels:
        return [shared]
    if column is None or column.kind != "label":
        raise refusal("--label: this model has no label_to_token that takes a class; use --condition name=value")
    return [{**shared, column.name: _label(column, label)} for label in labels]


def _label_column(config: TrainingConfig) -> Column | None:
    module = config.model.params.token_conditioners.label_to_token
    return None if module is None else column_of(config, conditioner_path("label_to_token"), module)


def _condition(config: TrainingConfig, text: str) -> tuple[str, Value]:
    name, separator, value = text.partition("=")
    if not separator:
        raise refusal(f"--condition {text!r}: write name=value")
    columns = {column.name: column for column in columns_of(config)}
    if name not in BUILT_IN and name not in columns:
        raise refusal(f"--condition {text!r}: there is no data column {name!r}; {_what_it_reads(config)}")
    if name not in read_by_model(config):
        raise refusal(f"--condition {text!r}: no part of this model reads {name!r}; {_what_it_reads(config)}")
    if name in BUILT_IN:
        return name, _file(value) if name == "image" else value
    return name, _value(columns[name], value)


def _what_it_reads(config: TrainingConfig) -> str:
    return f"it reads: {', '.join(read_by_model(config)) or 'nothing'}"


def _value(column: Column, text: str) -> Value:
    if column.kind == "label":
        return _label(column, text)
    if column.kind == "reference":
        return _file(text)
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
        if column.width not in (None, len(numbers)):
            raise refusal(f"--condition {column.name}={text}: has {len(numbers)} numbers, not {column.width}")
        return numbers
    except ValueError:
        if column.kind == "embedding":
            return _file(text)  # .npy or .safetensors
        raise refusal(f"--condition {column.name}={text}: numbers separated by commas are needed") from None


def _label(column: Column, text: str) -> int:
    label = int(text) if text.isdecimal() and int(text) <= MAX_INT else column.class_of(text)
    if label is None:
        known = "" if column.names is None else f", or one of {', '.join(column.names)}"
        raise refusal(f"{column.name}={text}: a class index is needed{known}")
    if column.width is not None and not 0 <= label < column.width:
        raise refusal(f"label {label} is outside 0..{column.width - 1}")
    return label


def _file(text: str) -> str:
    """From the working directory, where there is such a file; else the sampler looks among the data."""
    path = Path(text)
    return str(path.resolve()) if path.is_file() else text
