"""Writes that are there completely or not at all, also after a power cut."""

import os
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Flushes a file's contents, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Replaces a file so that a reader sees its old or its new contents, nothing between.

    Without fsync: for files that report, where losing the newest after a power cut costs nothing.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
