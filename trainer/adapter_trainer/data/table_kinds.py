"""What kind of table a file is, and files that hold samples in a form that is not read."""

from pathlib import Path
from typing import Literal

Kind = Literal["pairs", "csv", "jsonl", "json"]

_BY_ENDING: dict[str, Kind] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
TABLES = frozenset({*_BY_ENDING, ".tsv", ".tab"})
"""Endings of files that are tables wherever they lie."""

_UNREAD = {
    ".tar": ("a webdataset archive", "unpack it with `tar xf`, and name the folder"),
    ".parquet": ("a Parquet table", "write its rows as JSONL, and pictures that it holds as files"),
    ".arrow": ("an Arrow table", "write its rows as JSONL, and pictures that it holds as files"),
    ".lance": ("a Lance table", "write its rows as JSONL, and pictures that it holds as files"),
    ".mds": ("a shard of a streaming data set", "write its samples as files and a JSONL table"),
    ".tfrecord": ("a TFRecord file", "write its samples as files and a JSONL table"),
    ".xlsx": ("a spreadsheet", "save it as CSV with UTF-8"),
    ".xls": ("a spreadsheet", "save it as CSV with UTF-8"),
    ".ods": ("a spreadsheet", "save it as CSV with UTF-8"),
    ".numbers": ("a spreadsheet", "save it as CSV with UTF-8"),
    ".zip": ("an archive", "unpack it, and name the folder"),
    ".tgz": ("an archive", "unpack it, and name the folder"),
    ".gz": ("a compressed file", "unpack it"),
    ".zst": ("a compressed file", "unpack it"),
    ".7z": ("an archive", "unpack it, and name the folder"),
    ".rar": ("an archive", "unpack it, and name the folder"),
}
"""What they are, and what to do."""


def kind_of(name: str) -> Kind:
    """PURE: how a table of this name is read where the configuration leaves it open."""
    return _BY_ENDING.get(Path(name).suffix.lower(), "pairs")


def unread_kind(name: str) -> str | None:
    """PURE: what a file is that holds samples, or a table, in a form that is not read; None for any other."""
    found = _UNREAD.get(Path(name).suffix.lower())
    return None if found is None else found[0]


def refusal(path: Path) -> str | None:
    """PURE: why a file is not read as a table, and what to do; None where it may be read."""
    found = _UNREAD.get(path.suffix.lower())
    return None if found is None else f"{path} is {found[0]}, which is not read yet; {found[1]}"
