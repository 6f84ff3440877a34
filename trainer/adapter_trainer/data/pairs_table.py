"""Reads the samples: one row each, of a pairs file or a folder, every fault with file and line, nothing decoded yet."""

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapter_api.absent_data import remedy_of
from adapter_api.data import Column, DataParams
from adapter_trainer.data import caption_files, picture_folder, table_kinds
from adapter_trainer.data.table_formats import Fields, Key, Lines, TableText, fields_of, read_text
from adapter_trainer.errors import InvalidData

MAX_FAULTS = 20
"""Faults that are reported at once; one broken column would otherwise print a line a sample."""

LARGEST_NUMBER = 3.4e38
"""What a 32-bit float holds."""

OF_THEIR_OWN_FOLDER = frozenset({"metadata.csv", "metadata.jsonl"})
"""Hugging Face's metadata files, whose paths begin at the folder that they are in."""

EVALUATED = "evaluation.pairs_file_path"

_DECIMAL = re.compile(r"[+-]?\d+(,\d+)?(e[+-]?\d+)?", re.IGNORECASE)
"""A number as countries with decimal commas write it."""

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
    other_captions: tuple[str, ...] = ()
    """As good as `caption`: each reading draws one of them all."""

    @property
    def captions(self) -> tuple[str, ...]:
        """All of them, at least one."""
        return (self.caption, *self.other_captions)


@dataclass
class Table:
    """The samples, and what was there beside them."""

    rows: list[Row] = field(default_factory=list)
    several_lines: int = 0
    """Captions that have text on more than one line."""
    unused: list[str] = field(default_factory=list)
    """What looks like a sample, a caption or a table, and is not read."""
    notes: list[str] = field(default_factory=list)
    """What else is worth to be known."""


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


@contextmanager
def named_for_evaluation() -> Iterator[None]:
    """Within the block every fault of a table names evaluation.pairs_file_path, which it is named by."""
    try:
        yield
    except InvalidData as error:
        lines = str(error).replace("data.params.pairs_file_path", EVALUATED).split("\n")
        named = [line if EVALUATED in line or line.startswith("…") else f"{EVALUATED}: {line}" for line in lines]
        raise InvalidData("\n".join(named)) from None


def read_table(params: DataParams, columns: tuple[Column, ...]) -> list[Row]:
    """Every row of the pairs file, or of the folder of pictures in its place.

    Raises:
        InvalidData: the file or a line of it cannot be used; names file and line.
    """
    return read_samples(params, columns).rows


def read_samples(params: DataParams, columns: tuple[Column, ...]) -> Table:
    """Every row of the pairs file, or of the folder of pictures in its place, and what was left out.

    Raises:
        InvalidData: the file or a line of it cannot be used; names file and line.
    """
    root = Path(params.data_root_path)
    if not root.is_dir():
        remedy = remedy_of(params, table_is_here=Path(params.pairs_file_path).exists())
        raise InvalidData(f"data.params.data_root_path: {root} is not a folder; {remedy}")
    path = root / params.pairs_file_path
    table, faults = Table(), Faults(path)
    if path.is_dir():
        base, lines = root, _of_folder(path, root, params, columns, table)
    else:
        if params.format == "auto" and (refusal := table_kinds.refusal(path)) is not None:
            raise InvalidData(f"data.params.pairs_file_path: {refusal}")
        names = tuple(column.name for column in columns)
        base = path.parent if path.name in OF_THEIR_OWN_FOLDER else root
        kind = table_kinds.kind_of(path.name) if params.format == "auto" else params.format
        lines = fields_of(TableText(read_text(path), names, faults.add, table.unused.append), kind)
    bases = [root.resolve() / os.path.relpath(each, root) for each in (base, path.parent)]
    reader = _Row(root.resolve(), bases, columns, faults, params.caption_lines, is_folder=path.is_dir())
    for line, fields in lines:
        if (row := reader.read(line, fields)) is not None:
            table.rows.append(row)
    faults.raise_if_any()
    if not table.rows:
        raise InvalidData(f"{path}: holds no sample")
    table.several_lines = len(reader.several_lines)
    return table


def _of_folder(folder: Path, root: Path, params: DataParams, columns: tuple[Column, ...], table: Table) -> Lines:
    contents = picture_folder.read_folder(folder, columns, repeats=params.folder_repeats)
    table.unused, table.notes = picture_folder.told(contents.left_out, folder), contents.notes
    for line, picture in enumerate(contents.pictures, start=1):
        fields = {"image": picture_folder.name_of(picture.path, root), "caption": picture.caption}
        yield from ((line, fields) for _ in range(picture.repeats))


class _Row:
    """Turns the fields of one line into a row."""

    def __init__(
        self,
        root: Path,
        bases: list[Path],
        columns: tuple[Column, ...],
        faults: Faults,
        lines: caption_files.Lines,
        *,
        is_folder: bool,
    ) -> None:
        """`root` is what paths must stay inside; the first of `bases` is where they begin, kohya's also at the others."""
        self.root = root
        self.bases = bases
        self.columns = columns
        self.faults = faults
        self.lines = lines
        self.is_folder = is_folder
        self.several_lines = set[int]()

    def read(self, line: int, fields: Fields) -> Row | None:
        before = self.faults.count
        image = self._file(line, "image", fields["image"])
        captions = self._captions(line, fields["caption"])
        values = {column.name: self._value(line, column, fields[column.name]) for column in self.columns}
        if self.faults.count > before or image is None:
            return None
        given = {name: value for name, value in values.items() if value is not None}
        return Row(line, image, captions[0], given, captions[1:])

    def _captions(self, line: int, given: Any) -> tuple[str, ...]:
        if not isinstance(given, str) and not (
            isinstance(given, list) and all(isinstance(each, str) for each in given)
        ):
            self.faults.add(line, f"caption: {given!r} is not text")
            return ("",)
        if isinstance(given, str) and caption_files.has_lines(given):
            self.several_lines.add(line)
        found = caption_files.alternatives(given, self.lines)
        return tuple(" ".join(caption.split()) for caption in found) if self.is_folder else found

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
        parts = given if isinstance(given, list) else self._parts(line, column, str(given))
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

    def _parts(self, line: int, column: Column, text: str) -> list[str]:
        """Numbers between commas or blanks; with decimal commas where the column's width tells them apart."""
        plain, words = text.replace(",", " ").split(), text.split()
        if len(plain) == column.width or not all(_DECIMAL.fullmatch(word) for word in words):
            return plain
        if len(words) == column.width:
            return [word.replace(",", ".") for word in words]
        if column.width is None and len(words) > 1 and len(plain) == 2 * len(words):
            self.faults.add(
                line,
                f"{column.name}: {text[:60]!r} is {len(plain)} numbers, or {len(words)} with decimal commas; write points, "
                "or say the width in data.params.columns",
            )
        return plain

    def _file(self, line: int, name: str, given: Any) -> Path | None:
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            self.faults.add(line, f"{name}: {given!r} is not a path")
            return None
        path = self.bases[0] / given.strip()
        try:
            path = next(self._files(given), path)
            resolved, is_file = path.resolve(), path.is_file()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            self.faults.add(line, f"{name}: {given[:200]} cannot be used as a path: {error}")
            return None
        if not resolved.is_relative_to(self.root):
            self.faults.add(line, f"{name}: {given} leaves data_root_path {self.root}; move the file inside it")
            return None
        if not is_file:
            self.faults.add(line, f"{name}: {given} does not exist in {self.bases[0]}")
            return None
        return path

    def _files(self, given: str) -> Iterator[Path]:
        """The file, also as another system would have named it: with slashes, with letters composed, without its ending."""
        plain = self.bases[0] / given.strip()
        if plain.is_file():
            yield plain
        names = [given, given.strip(), given.strip().replace("\\", "/")]
        names += [unicodedata.normalize(form, name) for name in names for form in ("NFC", "NFD")]
        is_key = isinstance(given, Key)
        if is_key:
            names += [f"{name}{ending}" for name in names for ending in sorted(picture_folder.ENDINGS)]
        for base in self.bases if is_key else self.bases[:1]:
            yield from (base / name for name in names if (base / name).is_file())
