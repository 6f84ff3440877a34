"""The samples of a table whose columns nobody has declared yet, read as training reads those that are."""

import csv
import json
from pathlib import Path

from adapter_trainer.data.picture_folder import ENDINGS
from adapter_trainer.data.table_formats import ALSO, TableText, header_of, joined_tags, opened_csv, read_text
from atj.machine.found_data import Record


def read_records(file: Path) -> list[Record] | list[list[str]]:
    """By column; where a table has no header, the fields of each line.

    Raises:
        InvalidData: it is no text.
        ValueError, csv.Error, RecursionError: it is not what its name says.
    """
    text, ending = read_text(file), file.suffix.lower()
    if ending == ".csv" or {"image", "caption"} <= set(_header(text)):
        return _csv(text)
    if ending in {".jsonl", ".ndjson"}:
        return _jsonl(text)
    if ending == ".json":
        return _json(text, file.parent)
    return [line.split("\t") for line in text.split("\n") if line.strip()]


def _table(text: str) -> TableText:
    return TableText(text, (), lambda _line, _fault: None, lambda _note: None)


def _header(text: str) -> list[str]:
    first = text.partition("\n")[0].split("\t")
    return header_of(first, _table(""))


def _csv(text: str) -> list[Record]:
    reader, _ = opened_csv(_table(text))
    header = header_of(next(reader, []), _table(text))
    records = []
    for row in reader:
        if not any(field.strip() for field in row):
            continue
        if len(row) < len(header) or any(row[len(header) :]):
            raise ValueError(f"every line needs the {len(header)} fields of the header")
        records.append(dict(zip(header, row, strict=False)))
    return records


def _jsonl(text: str) -> list[Record]:
    records = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("every line must be a JSON object")
    return [_as_ours(record) for record in records]


def _json(text: str, folder: Path) -> list[Record]:
    whole = json.loads(text)
    if isinstance(whole, list) and all(isinstance(record, dict) for record in whole):
        return [_as_ours(record) for record in whole]
    if isinstance(whole, dict) and all(isinstance(fields, dict) for fields in whole.values()):
        return [{"image": _with_ending(key, folder), "caption": joined_tags(fields)} for key, fields in whole.items()]
    raise ValueError("is neither a list of objects nor captions by picture")


def _with_ending(key: str, folder: Path) -> str:
    """A picture as kohya's tables name it: its ending may be missing."""
    names = (key, *(f"{key}{ending}" for ending in sorted(ENDINGS)))
    return next((name for name in names if (folder / name).is_file()), key)


def _as_ours(record: Record) -> Record:
    ours = {other: name for name, others in ALSO.items() if name not in record for other in others}
    return {ours.get(name, name): value for name, value in record.items()}


NOT_READ = (ValueError, csv.Error, RecursionError)
"""What a table that is not what its name says is told by."""
