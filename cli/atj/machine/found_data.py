"""What data for a job were found to be: samples, the columns that conditions can read, and what is not used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapter_api.data import ColumnKind
from adapter_trainer.errors import InvalidData

WRITTEN = "atj-init.jsonl"
"""Name of the table that is written where a folder has none that training reads."""
EXAMPLES = 8
SIZED = 500
"""Pictures whose sizes are read."""
MAX_CLASSES = 1000

Record = dict[str, Any]
"""One sample: `image`, `caption`, and its other values by column."""


@dataclass(frozen=True)
class FoundColumn:
    """A column that a condition can read."""

    name: str
    kind: ColumnKind
    width: int | None = None
    """Classes of a label, numbers of a vector; None for files."""
    classes: tuple[str, ...] = ()
    """Names of a label's classes, where it has some."""
    examples: tuple[Any, ...] = ()
    """Values of the first samples that differ, as the table has them."""


@dataclass(frozen=True)
class DataFolder:
    """What was found."""

    root: Path
    table: str
    """Relative to the root; "." for the folder of pictures itself."""
    records: Sequence[Record] = field(repr=False)
    columns: tuple[FoundColumn, ...] = ()
    ignored: tuple[str, ...] = ()
    """Columns that no condition reads, and why."""
    left_out: tuple[str, ...] = ()
    """Files that look like samples and are none, and why."""
    notes: tuple[str, ...] = ()
    """What else is worth to be known."""
    repeats: Sequence[int] = field(default=(), repr=False)
    """How often each record stands in the table that is written; empty for once each."""
    is_new: bool = False
    """Whether the table has still to be written."""

    @property
    def captions(self) -> list[str]:
        """Those that are not empty."""
        return [text for record in self.records if (text := caption_of(record))]

    def column(self, *kinds: ColumnKind) -> FoundColumn | None:
        """The first column of these kinds."""
        return next((column for column in self.columns if column.kind in kinds), None)

    def text(self) -> str:
        """The table that is to be written."""
        times = self.repeats or (1,) * len(self.records)
        lines = (f"{json.dumps(record, ensure_ascii=False)}\n" for record in self.records)
        return "".join(line * count for line, count in zip(lines, times, strict=True))

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the first pictures, upright; none where Pillow is not installed."""
        try:
            from adapter_trainer.data.opening import read_header
        except ModuleNotFoundError:
            return []
        found = []
        for record in self.records[:SIZED]:
            file = self.root / str(record["image"])
            try:
                height, width = read_header(file.name, file).size
            except InvalidData:
                continue  # validating and training name the picture
            found.append((width, height))
        return found


def caption_of(record: Record) -> str:
    """PURE: a sample's caption, the first of several; empty where it has none."""
    given = record.get("caption") or ""
    return str(given[0] if isinstance(given, list) else given).strip()
