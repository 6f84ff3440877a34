"""Captions in files beside pictures, in the forms that trainers of this field write, and what several lines in one mean."""

import json
from pathlib import Path
from typing import Any, Literal

from adapter_trainer.data.text_files import decoded
from adapter_trainer.errors import InvalidData

ENDINGS = (".txt", ".caption", ".json")
"""`a.txt`, `a.caption` or `a.json` of `a.png`; then `a.png.txt`, and so on. The first that is there is read."""
Lines = Literal["join", "first", "any"]
"""data.params.caption_lines."""


def candidates(picture: str) -> list[str]:
    """Names that a picture's caption file may have, the first to be preferred."""
    stem = picture.rpartition(".")[0]
    return [f"{name}{ending}" for name in (stem, picture) for ending in ENDINGS]


def read_caption(file: Path) -> str | list[str] | None:
    """The caption, or its alternatives; None where a JSON file holds none.

    Raises:
        InvalidData: the file cannot be read as text or JSON.
    """
    if file.exists() and not file.is_file():
        raise InvalidData(f"{file}: is no plain file, so that no caption can be read from it; remove it")
    try:
        text = decoded(file.read_bytes())
    except OSError as error:
        raise InvalidData(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{file}: is not UTF-8 text; save the file as UTF-8") from None
    if file.suffix.lower() != ".json":
        return text
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{file}: is not JSON: {error}") from None
    caption = found.get("caption") if isinstance(found, dict) else None
    if isinstance(caption, str) or (isinstance(caption, list) and all(isinstance(each, str) for each in caption)):
        return caption
    return None


def has_lines(caption: str) -> bool:
    """PURE: whether there is text on more than one line."""
    return sum(bool(line.strip()) for line in caption.split("\n")) > 1


def alternatives(caption: str | list[str], lines: Lines) -> tuple[str, ...]:
    """PURE: what a sample may be trained with, at least one text; a text of one line stays as it is.

    Args:
        caption: text, or alternatives that were given as such.
        lines: what several lines of a text mean.
    """
    given = [caption] if isinstance(caption, str) else caption
    if lines != "join":
        given = [line for text in given for line in (_lines(text) if has_lines(text) else [text])]
    return tuple(given[:1] if lines == "first" else given) or ("",)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]
