"""What users ask for on the command line -> the rows of condition values that a sampler draws."""

from collections.abc import Sequence

from adapter_api.base import MAX_INT
from adapter_api.columns import BUILT_IN, column_of, columns_of
from adapter_api.data import Column
from adapter_api.training import TrainingConfig
from atj.errors import refusal

Value = int | str | tuple[float, ...]
Row = dict[str, Value]


def rows_of(
    config: TrainingConfig, labels: Sequence[int] = (), conditions: Sequence[str] = (), prompt: str | None = None
) -> list[Row]:
    """One row for each label, each with all other conditions too.

    Without any condition: a row for each class of label_to_token, else config.sampling.rows, else one without condition.

    Args:
        config: The checkpoint's, with widths resolved.
        labels: Values of the column that feeds label_to_token.
        conditions: name=value, by data column.
        prompt: The caption.

    Raises:
        CommandError: a condition that the model does not have, or a value that does not fit its column.
    """
    shared = dict(_condition(config, text) for text in conditions)
    if prompt is not None:
        shared["caption"] = prompt
    column = _label_column(config)
    if not labels and not shared:
        if column is not None and column.kind == "label" and column.width is not None:
            return [{column.name: label} for label in range(column.width)]
        from adapter_trainer.rows_to_draw import rows_to_draw  # brings torch

        return [dict(row) for row in rows_to_draw(config)] or [{}]
    if not labels:
        return [shared]
    if column is None or column.kind != "label":
        raise refusal("--label: this model has no label_to_token that takes a class; use --condition name=value")
    return [{**shared, column.name: _label(column, label)} for label in labels]


def _label_column(config: TrainingConfig) -> Column | None:
    module = config.model.params.token_conditioners.label_to_token
    return None if module is None else column_of(config, "token_conditioners.label_to_token", module)


def _condition(config: TrainingConfig, text: str) -> tuple[str, Value]:
    name, separator, value = text.partition("=")
    if not separator:
        raise refusal(f"--condition {text!r}: write name=value")
    if name in BUILT_IN:
        return name, value
    columns = {column.name: column for column in columns_of(config)}
    if name not in columns:
        known = ", ".join([*BUILT_IN, *columns])
        raise refusal(f"--condition {text!r}: there is no data column {name!r}; this model knows: {known}")
    return name, _value(columns[name], value)


def _value(column: Column, text: str) -> Value:
    if column.kind == "label":
        if not text.isdecimal() or int(text) > MAX_INT:
            raise refusal(f"--condition {column.name}={text}: a class index is needed")
        return _label(column, int(text))
    if column.kind == "reference":
        return text
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        if column.kind == "embedding":
            return text  # a .npy or .safetensors file
        raise refusal(f"--condition {column.name}={text}: numbers separated by commas are needed") from None


def _label(column: Column, label: int) -> int:
    if column.width is not None and not 0 <= label < column.width:
        raise refusal(f"label {label} is outside 0..{column.width - 1}")
    return label
