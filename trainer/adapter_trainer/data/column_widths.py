"""How wide a column is by what the table itself gives: classes of a label, numbers of a vector. Needs no further package."""

from pathlib import Path

from adapter_api.data import Column
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.errors import InvalidData


def width_of(column: Column, rows: list[Row], table: Path) -> int | None:
    """PURE: the declared width, or that of labels and vectors; None where only the column's files can tell.

    Raises:
        InvalidData: rows of one vector column have different lengths.
    """
    if column.width is not None:
        return column.width
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
        else:
            return None
    return width
