"""A folder of pictures, each with its caption in a text file beside it, as the pairs file that it stands for."""

import os
from collections.abc import Iterable
from pathlib import Path

from adapter_api.data import Column
from adapter_trainer.errors import InvalidData

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
CAPTION = ".txt"


def pictures(folder: Path) -> list[Path]:
    """In this folder and those below, in the order of their paths; hidden ones are left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if Path(name).suffix.lower() in ENDINGS and name[0] != "."]
    return sorted(found)


def pairs_of(folder: Path, root: Path, columns: tuple[Column, ...]) -> str:
    """The pairs file, with paths relative to `root`. Either every picture has a caption file, or none has.

    Raises:
        InvalidData: no pictures, captions that are missing or unreadable, or columns, which only a table can hold.
    """
    if columns:
        names = ", ".join(column.name for column in columns)
        raise InvalidData(
            f"data.params.pairs_file_path: {folder} is a folder, which gives pictures and captions; write a pairs file "
            f"that has {names} as well"
        )
    found = pictures(folder)
    if not found:
        raise InvalidData(f"{folder}: holds no picture ({', '.join(sorted(ENDINGS))})")
    without = [picture for picture in found if not picture.with_suffix(CAPTION).is_file()]
    if 0 < len(without) < len(found):
        raise InvalidData(
            f"{folder}: {len(without)} of {len(found)} pictures have no caption, the first is {without[0]}; write "
            f"{without[0].with_suffix(CAPTION).name} beside it, empty where there is to be none"
        )
    captions = [""] * len(found) if without else [_caption(picture.with_suffix(CAPTION)) for picture in found]
    return text_of(zip(found, captions, strict=True), root)


def text_of(pairs: Iterable[tuple[Path, str]], root: Path) -> str:
    """Pictures and captions as lines of a pairs file.

    Raises:
        InvalidData: a name that would end a field or a line.
    """
    lines = []
    for picture, caption in pairs:
        name = os.path.relpath(picture, root)
        if "\t" in name or "\n" in name:
            raise InvalidData(f"{picture}: has a tab or line end in its name; rename it")
        lines.append(f"{name}\t{caption}\n")
    return "".join(lines)


def _caption(file: Path) -> str:
    """A file's text in one line."""
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except OSError as error:
        raise InvalidData(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{file}: is not UTF-8 text; save the file as UTF-8") from None
