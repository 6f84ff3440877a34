"""What lies in a folder of pictures: which columns its table has, or which conditions files beside the pictures give."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from adapter_api.data import ColumnKind
from adapter_trainer.data import caption_files
from adapter_trainer.data.picture_folder import ENDINGS, not_used, pictures
from adapter_trainer.errors import InvalidData
from atj.errors import refusal
from atj.machine.table_records import NOT_READ, Record, read_records

TABLES = ("train.txt", "train.csv", "train.jsonl", "metadata.jsonl", "metadata.csv", "pairs.txt")
"""Names that a table goes by, the likeliest first."""
OTHER_TABLES = frozenset({".csv", ".jsonl", ".ndjson", ".json", ".tsv"})
"""Endings of tables of any name."""
WRITTEN = "atj-init.jsonl"
"""Name of the table that is written where a folder has none that training reads."""
EMBEDDINGS = (".npy", ".safetensors")
REFERENCES = frozenset({"reference", "references", "ref", "refs"})
"""Folders that hold reference pictures, each of the name of the picture that it is for."""
OUTPUTS = "atj-output"
"""Where `atj run` puts its results by default; the pictures there are drawn ones."""
MAX_CLASSES = 1000
FEW = 4
"""Samples up to which labels may all be different."""
EXAMPLES = 8
SIZED = 500
"""Pictures whose sizes are read."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


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
    is_new: bool = False
    """Whether the table has still to be written."""

    @property
    def captions(self) -> list[str]:
        """Those that are not empty."""
        given = [record.get("caption") or "" for record in self.records]
        texts = [text for each in given for text in (each if isinstance(each, list) else [each])]
        return [text for each in texts if (text := str(each).strip())]

    def column(self, *kinds: ColumnKind) -> FoundColumn | None:
        """The first column of these kinds."""
        return next((column for column in self.columns if column.kind in kinds), None)

    def text(self) -> str:
        """The table that is to be written."""
        return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in self.records)

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the first pictures; none where Pillow is not installed."""
        try:
            from PIL import Image  # of the trainer's packages
        except ModuleNotFoundError:
            return []
        found = []
        for record in self.records[:SIZED]:
            path = self.root / str(record["image"])
            try:
                if path.is_file():  # of what is none, some would never be opened
                    with Image.open(path) as picture:
                        found.append(picture.size)
            except (OSError, SyntaxError, ValueError):
                continue  # validating and training name the picture
        return found


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
    return _of_pictures(path)


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
        tuple(ignored), is_new,
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
        return "holds whole numbers, a different one for every sample, so that they are no label"
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
        return "holds lists of what is no number"
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
        {"image": record["image"], "caption": record.get("caption") or ""} | {name: record[name] for name in names}
        for record in records
    ]


# --- pictures ---


def _of_pictures(root: Path) -> DataFolder:
    everything = [file for file in pictures(root) if OUTPUTS not in file.relative_to(root).parts]
    references = {file.stem: file for file in everything if file.relative_to(root).parts[0].lower() in REFERENCES}
    samples = [file for file in everything if file.relative_to(root).parts[0].lower() not in REFERENCES]
    if not samples:
        also = "".join(f"; {line}" for line in not_used(root))
        raise refusal(f"--data {root}: holds no picture ({', '.join(sorted(ENDINGS))}), and no table{also}")
    for file in samples:
        _check_name(file)
    captions = [_caption(file) for file in samples]
    records: list[Record] = [
        {"image": file.relative_to(root).as_posix(), "caption": caption or ""}
        for file, caption in zip(samples, captions, strict=True)
    ]
    columns: list[FoundColumn] = []
    folders = [file.relative_to(root).parts[0] if file.parent != root else None for file in samples]
    classes = tuple(sorted({folder for folder in folders if folder is not None}))
    if None not in folders and 2 <= len(classes) <= MAX_CLASSES:
        _give(records, "label", [classes.index(str(folder)) for folder in folders])
        columns.append(FoundColumn("label", "label", len(classes), classes))
    for name, beside in (
        ("embedding", [_embedding(file, root) for file in samples]),
        ("reference", [references.get(file.stem) for file in samples]),
    ):
        found = [file.relative_to(root).as_posix() for file in beside if file is not None]
        if found and len(found) < len(samples):
            first = next(file for file, other in zip(samples, beside, strict=True) if other is None)
            raise refusal(
                f"--data {root}: {len(found)} of {len(samples)} pictures have a file for {name}; {first} has none"
            )
        if found:
            _give(records, name, found)
            columns.append(
                FoundColumn(
                    name, "embedding" if name == "embedding" else "reference", None, (), tuple(found[:EXAMPLES])
                )
            )
    some_captions = None in captions and any(captions)
    # A run that is started in the folder writes its own pictures there, which a folder as the table would train on.
    holds_outputs = Path.cwd().is_relative_to(root.resolve())
    is_new = bool(columns) or bool(references) or some_captions or holds_outputs
    return DataFolder(root, WRITTEN if is_new else ".", records, tuple(columns), is_new=is_new)


def _check_name(file: Path) -> None:
    try:
        file.as_posix().encode()
    except UnicodeEncodeError:
        raise refusal(f"--data: the file {file.as_posix()!a} has a name that is not UTF-8; rename it") from None


def _give(records: list[Record], name: str, values: Sequence[Any]) -> None:
    for record, value in zip(records, values, strict=True):
        record[name] = value


def _caption(picture: Path) -> str | list[str] | None:
    """Of the file that training reads it from."""
    beside = (picture.with_name(name) for name in caption_files.candidates(picture.name))
    for file in beside:
        if file.is_file():
            try:
                found = caption_files.read_caption(file)
            except InvalidData as error:
                raise refusal(str(error)) from None
            if found is not None:
                return " ".join(found.split()) if isinstance(found, str) else found
    return None


def _embedding(picture: Path, root: Path) -> Path | None:
    places = [picture.with_suffix(ending) for ending in EMBEDDINGS]
    places += [root / "embeddings" / f"{picture.stem}{ending}" for ending in EMBEDDINGS]
    return next((place for place in places if place.is_file()), None)
