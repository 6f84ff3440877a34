"""The text of a table as named fields by line, in each of the formats: pairs, CSV, JSONL, JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_trainer.data.table_kinds import Kind
from adapter_trainer.data.text_files import decoded
from adapter_trainer.errors import InvalidData

ALSO = {"image": ("file_name", "image_file"), "caption": ("text",)}
"""Other names of the fields: Hugging Face's folders have file_name and text, IP-Adapter's data.json image_file and text."""
DELIMITERS = ",;\t|"
"""What spreadsheets write between fields: by country, and by how they are asked."""

Fields = dict[str, Any]
Lines = Iterator[tuple[int, Fields]]


class Key(str):
    """A picture's path whose ending may be missing."""

    __slots__ = ()


@dataclass(frozen=True)
class TableText:
    """A table's text, and who hears what is wrong in it."""

    text: str
    columns: tuple[str, ...]
    """Declared ones, after image and caption."""
    fault: Callable[[int, str], None]
    note: Callable[[str], None]
    """Hears what is not used."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the fields that every line must have."""
        return ("image", "caption", *self.columns)


def read_text(path: Path) -> str:
    """A file's text as editors and spreadsheets write it, line ends as one: UTF-8, or UTF-16 with its mark.

    Raises:
        InvalidData: it cannot be read, or is in another encoding.
    """
    try:
        if path.exists() and not path.is_file():
            raise InvalidData(f"data.params.pairs_file_path: {path} is neither a file nor a folder")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"data.params.pairs_file_path: {path} cannot be read: {error.strerror}") from None
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidData(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def fields_of(table: TableText, kind: Kind) -> Lines:
    """The fields of every line, by name; lines that cannot be read are told as faults."""
    return _READERS[kind](table)


# --- lines and names ---


def _lines(text: str) -> list[str]:
    """Lines as editors count them, without empty ones at the end.

    str.splitlines would also end them at separators inside a caption.
    """
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _as_ours(names: list[str], table: TableText) -> list[str]:
    ours = {}
    for name, others in ALSO.items():
        found = [other for other in others if other in names and other not in table.wanted]
        if found and name not in names:
            ours[found[0]] = name
    return [ours.get(name, name) for name in names]


def _tell_unused(names: list[str], table: TableText) -> None:
    if unused := [name for name in names if name not in table.wanted and name]:
        table.note(f"{', '.join(unused)}: {'columns' if len(unused) > 1 else 'a column'} that nothing reads")


# --- pairs and CSV ---


def _pairs(table: TableText) -> Lines:
    lines = _lines(table.text)
    if lines and set(table.wanted) <= set(header_of(lines[0].split("\t"), table)):
        yield from _csv(table)
        return
    for line, content in enumerate(lines, start=1):
        fields = content.split("\t")
        if not content.strip():
            table.fault(line, "is empty; remove it")
        elif len(fields) != len(table.wanted):
            names = ", ".join(table.wanted)
            table.fault(line, f"has {len(fields)} tab-separated fields, not {len(table.wanted)} ({names})")
        else:
            yield line, dict(zip(table.wanted, fields, strict=True))


def opened_csv(table: TableText) -> tuple[Any, int]:
    """What reads the lines from the header on (`csv.reader`'s), and the number of lines that were before it."""
    text, before, delimiter = table.text, 0, None
    first = text.partition("\n")[0]
    if first.lower().startswith("sep=") and len(first) == len("sep=;"):  # Excel's own word for it
        text, before, delimiter = text.partition("\n")[2], 1, first[-1]
    return csv.reader(io.StringIO(text), strict=True, delimiter=delimiter or _delimiter(text, table)), before


def _csv(table: TableText) -> Lines:
    reader, before = opened_csv(table)
    try:
        header = header_of(next(reader, []), table)
        if not _is_usable(header, before + 1, table):
            return
        empty: list[int] = []
        for fields in reader:
            line = before + reader.line_num
            if not any(field.strip() for field in fields):
                empty.append(line)
                continue
            for each in empty:
                table.fault(each, "is empty; remove it")
            empty = []
            kept = fields[: len(header)] if not any(fields[len(header) :]) else fields
            if len(kept) != len(header):
                table.fault(line, f"has {len(fields)} fields, not the header's {len(header)}")
            else:
                row = dict(zip(header, kept, strict=True))
                yield line, {name: row[name] for name in table.wanted}
    except csv.Error as error:
        table.fault(before + reader.line_num, f"is not CSV: {error}")


def _is_usable(header: list[str], line: int, table: TableText) -> bool:
    if missing := [name for name in table.wanted if name not in header]:
        table.fault(line, f"the header has no column {', '.join(missing)}")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        table.fault(line, f"the header has several columns {', '.join(twice)}; keep one of each")
    if missing or twice:
        return False
    _tell_unused(header, table)
    return True


def header_of(names: list[str], table: TableText) -> list[str]:
    """Names as the configuration has them: without blanks around them, and in its case where only that differs."""
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    known = {*table.wanted, *(other for others in ALSO.values() for other in others)}
    in_case = [name.lower() if name.lower() in known and name.lower() not in names else name for name in names]
    return _as_ours(in_case, table)


def _delimiter(text: str, table: TableText) -> str:
    """The one by which the header has the most of the columns."""

    def columns(delimiter: str) -> int:
        try:
            names = next(csv.reader(io.StringIO(text), strict=True, delimiter=delimiter), [])
        except csv.Error:
            return 0
        return len(set(table.wanted) & set(header_of(names, table)))

    return max(DELIMITERS, key=columns)


# --- JSON ---


class _TwiceError(ValueError):
    """An object that has a field several times."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"has {next(name for name in names if names.count(name) > 1)} several times; keep one")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _jsonl(table: TableText) -> Lines:
    unused: dict[str, None] = {}
    for line, content in enumerate(_lines(table.text), start=1):
        if not content.strip():
            table.fault(line, "is empty; remove it")
            continue
        try:
            fields = _DECODER.decode(content)
        except _TwiceError as error:
            table.fault(line, str(error))
        except (ValueError, RecursionError) as error:
            table.fault(line, f"is not JSON: {error}")
        else:
            yield from _of_object(line, fields, table, unused)
    _tell_unused(list(unused), table)


def _of_object(line: int, fields: Any, table: TableText, unused: dict[str, None]) -> Lines:
    if not isinstance(fields, dict):
        table.fault(line, "is not a JSON object")
        return
    fields = dict(zip(_as_ours(list(fields), table), fields.values(), strict=True))
    if missing := [name for name in table.wanted if name not in fields]:
        table.fault(line, f"has no {', '.join(missing)}")
    else:
        unused |= dict.fromkeys(name for name in fields if name not in table.wanted)
        yield line, {name: fields[name] for name in table.wanted}


def _json(table: TableText) -> Lines:
    """A list of objects, as IP-Adapter's data.json, or captions by picture, as kohya's meta_cap.json."""
    try:
        whole = _DECODER.decode(table.text)
    except _TwiceError:
        whole = {}  # told with its line below
    except (ValueError, RecursionError) as error:
        if table.text.lstrip().startswith("{") and "Extra data" in str(error):
            yield from _jsonl(table)  # one object a line, under another name
        else:
            table.fault(getattr(error, "lineno", 1), f"is not JSON: {error}")
        return
    unused: dict[str, None] = {}
    if not isinstance(whole, dict | list):
        table.fault(1, "is neither a list of objects nor captions by picture")
        return
    if isinstance(whole, dict) and not all(isinstance(value, dict) for value in whole.values()):
        if set(table.wanted) <= set(_as_ours(list(whole), table)):
            yield from _of_object(1, whole, table, unused)
        else:
            table.fault(1, "is neither a list of objects with image and caption nor captions by picture; write JSONL")
        return
    seen: set[str] = set()
    for line, key, value in _members(table):
        if key is None or not isinstance(value, dict):
            yield from _of_object(line, value, table, unused)
        elif key in seen:
            table.fault(line, f"has {key} several times; keep one")
        else:
            seen.add(key)
            yield from _of_object(line, {**value, "image": Key(key), "caption": joined_tags(value)}, table, unused)
    unused.pop("tags", None)
    _tell_unused(list(unused), table)


def joined_tags(fields: dict[str, Any]) -> Any:
    """Caption and tags as kohya's trainers put them together."""
    caption, tags = fields.get("caption"), fields.get("tags")
    if caption is None or tags is None or not (isinstance(caption, str) and isinstance(tags, str)):
        return next((each for each in (caption, tags) if each is not None), "")
    return f"{caption}, {tags}" if tags else caption


def _members(table: TableText) -> Iterator[tuple[int, str | None, Any]]:
    """Line, key and value of each member of a list or object that is JSON."""
    text, line, counted = table.text, 1, 0

    def past_blanks(start: int) -> int:
        while start < len(text) and text[start] in " \t\n,:":
            start += 1
        return start

    at = past_blanks(0)
    is_object = text[at : at + 1] == "{"
    at = past_blanks(at + 1)
    while at < len(text) and text[at] not in "]}":
        line, counted = line + text.count("\n", counted, at), at
        key = None
        try:
            if is_object:
                key, at = _DECODER.raw_decode(text, at)
                at = past_blanks(at)
            value, at = _DECODER.raw_decode(text, at)
        except _TwiceError as error:
            table.fault(line, str(error))
            return
        except (ValueError, RecursionError) as error:
            table.fault(line, f"is not JSON: {error}")
            return
        yield line, key, value
        at = past_blanks(at)


_READERS: dict[Kind, Callable[[TableText], Lines]] = {"pairs": _pairs, "csv": _csv, "jsonl": _jsonl, "json": _json}
