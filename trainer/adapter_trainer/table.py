"""Reads the pairs file: one row a sample, every fault with file and line, nothing decoded yet."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_api.absent_data import remedy_of
from adapter_api.data import Column, DataParams
from adapter_trainer import picture_folder
from adapter_trainer.errors import InvalidData

MAX_FAULTS = 20
"""Faults that are reported at once; one broken column would otherwise print a line a sample."""

LARGEST_NUMBER = 3.4e38
"""What a 32-bit float holds."""

ALSO = {"image": "file_name", "caption": "text"}
"""What data sets in Hugging Face's folder layout call them in their metadata.csv or metadata.jsonl."""

Value = int | tuple[float, ...] | Path
"""A label, a vector, or the path of an embedding or reference image."""


@dataclass(frozen=True)
class Row:
    """One sample as the table gives it."""

    line: int
    """In the pairs file, from 1; of a folder, the picture's place in it."""
    image: Path
    caption: str
    values: dict[str, Value]
    """By column."""


class Faults:
    """Collects what is wrong with the data, so that its owner can mend all of it at once."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.found: list[str] = []
        self.count = 0

    def add(self, line: int, message: str) -> None:
        """Notes a fault of a line."""
        self.count += 1
        if len(self.found) < MAX_FAULTS:
            self.found.append(f"{self.table}:{line}: {message}")

    def raise_if_any(self) -> None:
        """Raises InvalidData with every fault noted."""
        if self.found:
            more = self.count - len(self.found)
            raise InvalidData("\n".join([*self.found, *([f"… and {more} faults more"] if more else [])]))


def read_table(params: DataParams, columns: tuple[Column, ...]) -> list[Row]:
    """Every row of the pairs file, or of the folder of pictures in its place.

    Raises:
        InvalidData: the file or a line of it cannot be used; names file and line.
    """
    root = Path(params.data_root_path)
    if not root.is_dir():
        remedy = remedy_of(params, table_is_here=Path(params.pairs_file_path).exists())
        raise InvalidData(f"data.params.data_root_path: {root} is not a folder; {remedy}")
    path = root / params.pairs_file_path
    if path.is_dir():
        text, kind = picture_folder.pairs_of(path, root, columns), "pairs"
    else:
        text, kind = _text_of(path), _format(params)
    faults = Faults(path)
    rows = []
    reader = _Row(root.resolve(), columns, faults)
    for line, fields in _READERS[kind](text, columns, faults):
        if (row := reader.read(line, fields)) is not None:
            rows.append(row)
    faults.raise_if_any()
    if not rows:
        raise InvalidData(f"{path}: holds no sample")
    return rows


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidData(f"data.params.pairs_file_path: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InvalidData(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def _format(params: DataParams) -> str:
    if params.format != "auto":
        return params.format
    ending = Path(params.pairs_file_path).suffix.lower()
    return {".csv": "csv", ".jsonl": "jsonl"}.get(ending, "pairs")


Fields = dict[str, Any]
Lines = Iterator[tuple[int, Fields]]


def _lines(text: str) -> list[str]:
    """Lines as editors count them; str.splitlines would also end them at separators inside a caption."""
    return text.removesuffix("\n").split("\n") if text else []


def _pairs(text: str, columns: tuple[Column, ...], faults: Faults) -> Lines:
    names = ("image", "caption", *(column.name for column in columns))
    for line, content in enumerate(_lines(text), start=1):
        fields = content.split("\t")
        if not content.strip():
            faults.add(line, "is empty; remove it")
        elif len(fields) != len(names):
            faults.add(line, f"has {len(fields)} tab-separated fields, not {len(names)} ({', '.join(names)})")
        else:
            yield line, dict(zip(names, fields, strict=True))


def _csv(text: str, columns: tuple[Column, ...], faults: Faults) -> Lines:
    reader = csv.reader(io.StringIO(text), strict=True)
    wanted = ("image", "caption", *(column.name for column in columns))
    try:
        header = _as_ours(next(reader, []), wanted)
        if missing := [name for name in wanted if name not in header]:
            faults.add(1, f"the header has no column {', '.join(missing)}")
            return
        for fields in reader:
            if not fields:
                faults.add(reader.line_num, "is empty; remove it")
            elif len(fields) != len(header):
                faults.add(reader.line_num, f"has {len(fields)} fields, not the header's {len(header)}")
            else:
                row = dict(zip(header, fields, strict=True))
                yield reader.line_num, {name: row[name] for name in wanted}
    except csv.Error as error:
        faults.add(reader.line_num, f"is not CSV: {error}")


def _as_ours(names: list[str], wanted: tuple[str, ...]) -> list[str]:
    ours = {other: name for name, other in ALSO.items() if name not in names and other not in wanted}
    return [ours.get(name, name) for name in names]


def _jsonl(text: str, columns: tuple[Column, ...], faults: Faults) -> Lines:
    wanted = ("image", "caption", *(column.name for column in columns))
    for line, content in enumerate(_lines(text), start=1):
        if not content.strip():
            faults.add(line, "is empty; remove it")
            continue
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            faults.add(line, f"is not JSON: {error}")
            continue
        if not isinstance(fields, dict):
            faults.add(line, "is not a JSON object")
            continue
        fields = dict(zip(_as_ours(list(fields), wanted), fields.values(), strict=True))
        if missing := [name for name in wanted if name not in fields]:
            faults.add(line, f"has no {', '.join(missing)}")
        else:
            yield line, {name: fields[name] for name in wanted}


_READERS: dict[str, Callable[[str, tuple[Column, ...], Faults], Lines]] = {
    "pairs": _pairs,
    "csv": _csv,
    "jsonl": _jsonl,
}


class _Row:
    """Turns the fields of one line into a row."""

    def __init__(self, root: Path, columns: tuple[Column, ...], faults: Faults) -> None:
        self.root = root
        self.columns = columns
        self.faults = faults

    def read(self, line: int, fields: Fields) -> Row | None:
        before = self.faults.count
        image = self._file(line, "image", fields["image"])
        caption = fields["caption"]
        if not isinstance(caption, str):
            self.faults.add(line, f"caption: {caption!r} is not text")
        values = {column.name: self._value(line, column, fields[column.name]) for column in self.columns}
        if self.faults.count > before or image is None:
            return None
        return Row(line, image, caption, {name: value for name, value in values.items() if value is not None})

    def _value(self, line: int, column: Column, given: Any) -> Value | None:
        if column.kind == "label":
            return self._label(line, column, given)
        if column.kind == "vector":
            return self._vector(line, column, given)
        return self._file(line, column.name, given)

    def _label(self, line: int, column: Column, given: Any) -> int | None:
        text = str(given).strip()
        if isinstance(given, bool) or not text.isascii() or not text.isdigit() or len(text) > 9:
            self.faults.add(line, f"{column.name}: {given!r} is not a label index; write 0, 1, 2, …")
            return None
        if column.width is not None and int(text) >= column.width:
            self.faults.add(line, f"{column.name}: label {text} is outside 0..{column.width - 1}")
            return None
        return int(text)

    def _vector(self, line: int, column: Column, given: Any) -> tuple[float, ...] | None:
        parts = given if isinstance(given, list) else str(given).replace(",", " ").split()
        try:
            vector = tuple(float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            self.faults.add(line, f"{column.name}: {str(given)[:60]!r} is not a list of numbers")
            return None
        if not vector or not all(abs(number) <= LARGEST_NUMBER for number in vector):
            self.faults.add(line, f"{column.name}: {str(given)[:60]!r} is not a list of finite 32-bit numbers")
            return None
        if column.width is not None and len(vector) != column.width:
            self.faults.add(line, f"{column.name}: has {len(vector)} numbers, not {column.width}")
            return None
        return vector

    def _file(self, line: int, name: str, given: Any) -> Path | None:
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            self.faults.add(line, f"{name}: {given!r} is not a path")
            return None
        path = self.root / given.strip()
        try:
            resolved, is_file = path.resolve(), path.is_file()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            self.faults.add(line, f"{name}: {given[:200]} cannot be used as a path: {error}")
            return None
        if not resolved.is_relative_to(self.root):
            self.faults.add(line, f"{name}: {given} leaves data_root_path {self.root}; move the file inside it")
            return None
        if not is_file:
            self.faults.add(line, f"{name}: {given} does not exist in {self.root}")
            return None
        return path
