"""Reads what lies at a path: a table, whose columns' kinds follow from their values, or a folder of pictures."""

import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from adapter_trainer.data import caption_files
from adapter_trainer.data.picture_folder import ENDINGS
from adapter_trainer.errors import InvalidData
from atj.errors import refusal
from atj.machine.found_data import EXAMPLES, MAX_CLASSES, WRITTEN, DataFolder, FoundColumn, Record
from atj.machine.picture_samples import of_pictures
from atj.machine.table_records import NOT_READ, read_records

TABLES = ("train.txt", "train.csv", "train.jsonl", "metadata.jsonl", "metadata.csv", "pairs.txt")
"""Names that a table goes by, the likeliest first."""
OTHER_TABLES = frozenset({".csv", ".jsonl", ".ndjson", ".json", ".tsv"})
"""Endings of tables of any name."""
WITH_NAMES = (".csv", ".jsonl", ".ndjson", ".json")
"""Endings of tables whose fields have names; of others, every column is read."""
EMBEDDINGS = (".npy", ".safetensors")
FEW = 4
"""Samples up to which labels may all be different."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


def read_data_folder(path: Path) -> DataFolder:
    """What lies at a path: a table, a folder with a table, or a folder of pictures.

    Raises:
        CommandError: nothing to train on, or a table that cannot be read.
    """
    if path.is_file():
        return _of_table(path.parent, path.name)
    if not path.is_dir():
        raise refusal(f"--data {path}: is neither a folder nor a table; name the folder that your pictures are in")
    if (table := _table_in(path)) is not None:
        return _of_table(path, table)
    return of_pictures(path)


def _table_in(root: Path) -> str | None:
    for name in TABLES:
        if (root / name).is_file() and not _is_caption(root / name):
            return name
    others = sorted(
        file.name
        for file in root.iterdir()
        if file.suffix in OTHER_TABLES and file.name != WRITTEN and not _is_caption(file)
    )
    if len(others) > 1:
        raise refusal(
            f"--data {root}: holds the tables {', '.join(others)}; name one, such as --data {root / others[0]}"
        )
    return others[0] if others else None


def _is_caption(file: Path) -> bool:
    beside = (file.with_suffix(""), *(file.with_suffix(ending) for ending in ENDINGS))
    return file.suffix in caption_files.ENDINGS and any(each.is_file() for each in beside)


# --- a table ---


def _of_table(root: Path, name: str) -> DataFolder:
    try:
        read = read_records(root / name)
        records = _named(read)
    except InvalidData as error:
        raise refusal(str(error).removeprefix("data.params.pairs_file_path: ")) from None
    except NOT_READ as error:
        raise refusal(f"{root / name}: {error}") from None
    if not records:
        raise refusal(f"{root / name}: holds no sample")
    if any("image" not in record for record in records):
        raise refusal(f"{root / name}: has no column image (or file_name): the path of each sample's picture")
    is_new = any("caption" not in record for record in records)
    columns, ignored = [], []
    for column in [key for key in records[0] if key not in {"image", "caption"}]:
        found = _column(column, [record.get(column) for record in records])
        if isinstance(found, str):
            ignored.append(f"{column}: {found}")
            continue
        columns.append(found)
        if found.classes or found.name != column:
            is_new = True
            _renamed(records, column, found)
    if ignored and isinstance(read[0], list):
        raise refusal(
            f"{root / name}: {ignored[0]}; every column of a tab-separated table is read, so remove it, or write CSV"
        )
    return DataFolder(
        root, WRITTEN if is_new else name, _written(records, columns) if is_new else records, tuple(columns),
        tuple(ignored), is_new=is_new,
    )  # fmt: skip


def _named(read: list[Record] | list[list[str]]) -> list[Record]:
    """Names for the fields of lines that have none."""
    lines = [each for each in read if isinstance(each, list)]
    if not lines:
        return [each for each in read if isinstance(each, dict)]
    counts = {len(fields) for fields in lines}
    if len(counts) > 1 or counts & {1}:
        raise ValueError("every line needs a picture, a tab, a caption, and as many further fields as the others")
    names = ["image", "caption"]
    seen: dict[str, int] = {}
    for index in range(2, min(counts, default=2)):
        found = _column("field", [fields[index] for fields in lines])
        kind = "text" if isinstance(found, str) else found.kind
        seen[kind] = seen.get(kind, 0) + 1
        names.append(kind if seen[kind] == 1 else f"{kind}{seen[kind]}")
    return [dict(zip(names, fields, strict=True)) for fields in lines]


def _column(name: str, values: list[Any]) -> FoundColumn | str:
    """What a column holds, or why no condition reads it."""
    if any(value is None or value == "" for value in values):
        return "is empty in some samples"
    examples = tuple({str(value): value for value in values}.values())[:EXAMPLES]
    if all(isinstance(value, list) for value in values):
        return _vector(_name(name), values, examples)
    texts = [str(value).strip() for value in values]
    if all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        return _label(_name(name), [int(text) for text in texts])
    parts = [text.replace(",", " ").split() for text in texts]
    if all(_is_number(part) for each in parts for part in each):
        return _vector(_name(name), parts, examples)
    return _of_texts(_name(name), texts, examples)


def _of_texts(name: str, texts: list[str], examples: tuple[Any, ...]) -> FoundColumn | str:
    endings = {Path(text).suffix.lower() for text in texts}
    if endings <= set(EMBEDDINGS):
        return FoundColumn(name, "embedding", examples=examples)
    if endings <= ENDINGS:
        return FoundColumn(name, "reference", examples=examples)
    classes = sorted(set(texts))
    if 2 <= len(classes) <= min(MAX_CLASSES, max(2, len(texts) // 2)):
        return FoundColumn(name, "label", len(classes), tuple(classes))
    return f"holds text such as {texts[0][:40]!r}, which is neither a file nor a class"


def _label(name: str, numbers: list[int]) -> FoundColumn | str:
    width = max(numbers) + 1
    if width > MAX_CLASSES or len(set(numbers)) == len(numbers) > FEW:
        return "holds whole numbers, a different one for every sample, so they are not a label"
    return FoundColumn(name, "label", width)


def _is_number(part: Any) -> bool:
    try:
        return isfinite(float(part))
    except (TypeError, ValueError):
        return False


def _vector(name: str, values: list[list[Any]], examples: tuple[Any, ...]) -> FoundColumn | str:
    widths = {len(value) for value in values}
    if len(widths) > 1 or 0 in widths:
        return "holds lists of different lengths"
    if not all(_is_number(part) for value in values for part in value):
        return "holds lists of values that are not numbers"
    return FoundColumn(name, "vector", widths.pop(), examples=examples)


def _name(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:47]
    return plain if _NAME.fullmatch(plain) else f"column_{plain}"[:47]


def _renamed(records: list[Record], column: str, found: FoundColumn) -> None:
    numbers = {name: number for number, name in enumerate(found.classes)}
    for record in records:
        value = record.pop(column)
        record[found.name] = numbers[str(value).strip()] if found.classes else value


def _written(records: Iterable[Record], columns: Iterable[FoundColumn]) -> list[Record]:
    names = [column.name for column in columns]
    return [
        {
            "image": record["image"],
            "caption": record["caption"]
            if isinstance(record.get("caption"), list)
            else str(record.get("caption") or ""),
        }
        | {name: record[name] for name in names}
        for record in records
    ]
