"""A folder of pictures, each with its caption in a file beside it, as the samples that it stands for."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from adapter_api.data import Column
from adapter_trainer.data import caption_files, table_kinds
from adapter_trainer.errors import InvalidData

ENDINGS = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".j2k",
    ".jpx", ".apng", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi",
})  # fmt: skip
CAPTION = ".txt"
"""The ending that is proposed where a caption is missing."""
UNREAD = frozenset({
    ".heic", ".heif", ".hif", ".jxl", ".psd", ".psb", ".xcf", ".kra", ".svg", ".eps", ".pdf", ".ai", ".exr", ".hdr",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".ico", ".dds",
    ".mp4", ".mov", ".webm", ".avi", ".mkv", ".m4v",
})  # fmt: skip
"""Pictures and films that users may take for samples, and that are none here."""
MASKS = ("-masklabel", "-condlabel")
"""What OneTrainer's masks and conditioning pictures have behind the name of their picture."""
KEPT_BY_TRAINERS = frozenset({".npz", ".npy", ".pt", ".safetensors"})
"""Latents and states that other trainers keep beside pictures."""
PLAIN_TEXTS = ("readme", "license", "licence", "copying", "changelog", "credits")

REPEATS = re.compile(r"(\d+)_(.*)", re.DOTALL)
MOST_REPEATS = 500
"""A folder whose name begins with a greater number is named after a year or a day."""


@dataclass(frozen=True)
class Picture:
    """One picture of a folder."""

    path: Path
    caption: str | list[str]
    """As its file gives it; a list holds alternatives."""
    repeats: int = 1
    """Times that an epoch reads it."""


@dataclass
class Contents:
    """What a folder holds."""

    pictures: list[Picture] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    """Files and folders that look like samples, captions or tables and are not used, by what they are."""
    notes: list[str] = field(default_factory=list)

    def leave_out(self, what: str, path: Path) -> None:
        """Notes a file that is not used."""
        self.left_out.setdefault(what, []).append(path)


def pictures(folder: Path) -> list[Path]:
    """In this folder and those below, in the order of their paths; hidden ones and masks are left out."""
    return sorted(path for path, _ in _walk(folder, Contents()))


def captioned(folder: Path, contents: Contents) -> list[tuple[Path, str | list[str] | None]]:
    """Those pictures, each with what a file beside it gives as its caption; `contents` hears what is left out.

    Raises:
        InvalidData: a caption cannot be read.
    """
    return [(path, _caption(files, contents)) for path, files in _walk(folder, contents)]


def concept_of(name: str) -> tuple[int, str] | None:
    """PURE: repeats, and the caption of pictures without a file, that a sub-folder's name gives; None for other names."""
    match = REPEATS.fullmatch(name)
    if match is None or len(match[1]) > len(str(MOST_REPEATS)) or int(match[1]) > MOST_REPEATS:
        return None
    return int(match[1]), match[2].strip()


def read_folder(folder: Path, columns: tuple[Column, ...], *, repeats: bool = True) -> Contents:
    """Everything in a folder. Either every picture has a caption, or none has.

    Args:
        folder: the folder.
        columns: those that are declared; only a table can hold them.
        repeats: whether names of sub-folders such as 10_cat say how often an epoch reads what is in them.

    Raises:
        InvalidData: no pictures, captions that are missing, unreadable or of another layout, or columns.
    """
    if columns:
        names = ", ".join(column.name for column in columns)
        raise InvalidData(
            f"data.params.pairs_file_path: {folder} is a folder, which gives pictures and captions; write a pairs file "
            f"that has {names} as well"
        )
    contents = Contents()
    found = _walk(folder, contents)
    if not found:
        also = "".join(f"; {line}" for line in told(contents.left_out, folder))
        raise InvalidData(f"{folder}: holds no picture ({', '.join(sorted(ENDINGS))}){also}")
    concepts = _concepts(folder, contents) if repeats else {}
    captions = {path: _caption(files, contents) for path, files in found}
    without = [path for path, caption in captions.items() if caption is None and _top(path, folder) not in concepts]
    if len(without) == len(found):
        _check_captions_elsewhere(folder, without, contents)
    elif without:
        raise InvalidData(
            f"{folder}: {len(without)} of {len(found)} pictures have no caption, the first is {without[0]}; write "
            f"{without[0].with_suffix(CAPTION).name} next to it, empty for no caption"
        )
    for path, caption in captions.items():
        times, concept = concepts.get(_top(path, folder), (1, ""))
        if times:
            contents.pictures.append(Picture(path, concept if caption is None else caption, times))
        else:
            contents.leave_out("pictures in folders of 0 repeats", path)
    _tell_concepts(concepts, captions, folder, contents)
    return contents


def told(left_out: dict[str, list[Path]], folder: Path) -> list[str]:
    """PURE: one line for each kind of what is not used."""
    return [
        f"{what}: {len(paths)}, the first is {os.path.relpath(min(paths), folder)}" for what, paths in left_out.items()
    ]


def text_of(pairs: Iterable[tuple[Path, str]], root: Path) -> str:
    """Pictures and captions as lines of a pairs file.

    Raises:
        InvalidData: a name that would end a field or a line.
    """
    return "".join(f"{name_of(picture, root)}\t{caption}\n" for picture, caption in pairs)


def name_of(picture: Path, root: Path) -> str:
    """A picture's path as a table would give it.

    Raises:
        InvalidData: it would end a field or a line.
    """
    name = os.path.relpath(picture, root)
    if "\t" in name or "\n" in name:
        raise InvalidData(f"{picture}: has a tab or line end in its name; rename it")
    return name


# --- what is there ---


def _walk(folder: Path, contents: Contents) -> list[tuple[Path, list[Path]]]:
    """Pictures in the order of their paths, each with the caption files that are beside it."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(parent, name).is_symlink():
                contents.leave_out("links to folders, which are not entered", Path(parent, name))
        found += _sorted_out(Path(parent), [name for name in files if name[0] != "."], contents)
    return sorted(found)


def _sorted_out(parent: Path, files: list[str], contents: Contents) -> list[tuple[Path, list[Path]]]:
    shown = [name for name in files if Path(name).suffix.lower() in ENDINGS]
    stems = {Path(name).stem.lower() for name in shown}
    masks = {name for name in shown if _masked(Path(name).stem.lower()) in stems}
    by_lower = {name.lower(): name for name in files}
    found, used = [], set(shown)
    for name in shown:
        if name in masks:
            contents.leave_out("masks of pictures", parent / name)
            continue
        beside = [by_lower[each.lower()] for each in caption_files.candidates(name) if each.lower() in by_lower]
        used.update(beside)
        found.append((parent / name, [parent / each for each in beside]))
    for name in files:
        if name not in used and (what := _kind_of(name, stems)) is not None:
            contents.leave_out(what, parent / name)
    return found


def _masked(stem: str) -> str | None:
    return next((stem.removesuffix(mask) for mask in MASKS if stem.endswith(mask)), None)


ORPHANS = "caption files without a picture"
TABLES = "tables, which are read where data.params.pairs_file_path names them"
BESIDE = "files next to pictures of a kind that is not read"


def _kind_of(name: str, stems: set[str]) -> str | None:
    """What a file is that is neither a picture nor a caption of one, if anybody could take it for that."""
    stem, ending = Path(name).stem.lower(), Path(name).suffix.lower()
    if ending in UNREAD:
        return f"{ending} files, which are not read here (save them as PNG or JPEG)"
    if (kind := table_kinds.unread_kind(name)) is not None:
        return f"{ending} files ({kind}), which are not read yet"
    if ending in table_kinds.TABLES:
        return TABLES
    if ending in {".txt", ".caption"}:
        return None if stem.startswith(PLAIN_TEXTS) else ORPHANS
    return BESIDE if stem in stems and ending not in KEPT_BY_TRAINERS else None


# --- captions ---


def _caption(files: list[Path], contents: Contents) -> str | list[str] | None:
    chosen: str | list[str] | None = None
    for file in files:
        if chosen is not None:
            contents.leave_out("caption files of pictures that have another", file)
        elif (chosen := caption_files.read_caption(file)) is None:
            contents.leave_out(".json files next to pictures without a `caption`", file)
    return chosen


def _check_captions_elsewhere(folder: Path, without: list[Path], contents: Contents) -> None:
    """That there are no captions at all may be meant; it is not where they are there in another form.

    Raises:
        InvalidData: names the first file that may hold captions.
    """
    stems = {path.stem for path in without}
    tables, beside = contents.left_out.get(TABLES, []), contents.left_out.get(BESIDE, [])
    if tables:
        table = os.path.relpath(min(tables), folder)
        raise InvalidData(
            f"{folder}: no picture has a caption file, but there is {table}; name that in data.params.pairs_file_path, or "
            "remove it"
        )
    orphans = [path for path in contents.left_out.get(ORPHANS, []) if path.stem in stems]
    if other := [*orphans, *beside]:
        raise InvalidData(
            f"{folder}: no picture has a caption file, but there is {os.path.relpath(other[0], folder)}; captions are read "
            f"from {', '.join(caption_files.ENDINGS)} files next to their pictures: rename or move them, or remove what "
            "holds none"
        )


# --- folders that say how often they are read ---


def _top(picture: Path, folder: Path) -> str:
    """The sub-folder that a picture is in, directly or below; empty for none."""
    parts = picture.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _concepts(folder: Path, contents: Contents) -> dict[str, tuple[int, str]]:
    """Repeats, and the caption of pictures without a file, by sub-folder, as kohya's trainers read them."""
    concepts = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            continue
        if (concept := concept_of(path.name)) is not None:
            concepts[path.name] = concept
        elif (match := REPEATS.fullmatch(path.name)) is not None:
            contents.notes.append(
                f"{path.name}: an epoch reads its pictures once; {match[1]} is more than {MOST_REPEATS} repeats"
            )
    return concepts


def _tell_concepts(
    concepts: dict[str, tuple[int, str]],
    captions: dict[Path, str | list[str] | None],
    folder: Path,
    contents: Contents,
) -> None:
    for name, (times, concept) in concepts.items():
        own = [caption for path, caption in captions.items() if _top(path, folder) == name]
        named = sum(caption is None for caption in own)
        if own and times:
            also = f", {named} of them with the caption {concept!r}" if named else ""
            plural = "s" * (len(own) > 1)
            contents.notes.append(
                f"{name}: an epoch reads its {len(own)} picture{plural} {times} times{also} (data.params.folder_repeats)"
            )
