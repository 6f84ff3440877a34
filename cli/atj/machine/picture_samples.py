"""A folder of pictures as data: classes by sub-folder; captions, embeddings and references in files beside them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adapter_trainer.data.picture_folder import ENDINGS, TABLES, Contents, captioned, concept_of, told
from adapter_trainer.errors import InvalidData
from atj.errors import refusal
from atj.machine.found_data import EXAMPLES, MAX_CLASSES, WRITTEN, DataFolder, FoundColumn, Record

EMBEDDINGS = (".npy", ".safetensors")
REFERENCES = frozenset({"reference", "references", "ref", "refs"})
"""Folders that hold reference pictures, each of the name of the picture that it is for."""
OUTPUTS = "atj-output"
"""Where `atj run` puts its results by default; the pictures there are drawn ones."""
DECODED = 1000
"""Pictures that are looked into; validating and training name others that are broken."""
THREADS = 8

Caption = str | list[str] | None


def of_pictures(root: Path) -> DataFolder:
    """The data that a folder of pictures stands for.

    Raises:
        CommandError: no picture, or files beside pictures that some of them lack.
    """
    contents = Contents()
    try:
        everything = [each for each in captioned(root, contents) if OUTPUTS not in each[0].relative_to(root).parts]
    except InvalidData as error:
        raise refusal(str(error)) from None
    references = {file.stem: file for file, _ in everything if _folder(file, root).lower() in REFERENCES}
    given = [(file, text) for file, text in everything if _folder(file, root).lower() not in REFERENCES]
    for file, _ in given:
        _check_name(file)
    given = [(file, text) for file, text in given if _repeats(file, root)]
    broken = _broken([file for file, _ in given], root)
    samples = {file: _caption(text, file, root) for file, text in given if file not in broken}
    left_out = (*_left_out(contents, root), *broken.values())
    if not samples:
        raise refusal(
            "; ".join([f"--data {root}: holds no picture ({', '.join(sorted(ENDINGS))}), and no table", *left_out])
        )
    records: list[Record] = [
        {"image": file.relative_to(root).as_posix(), "caption": caption or ""} for file, caption in samples.items()
    ]
    columns = [*_classes(records, list(samples), root), *_beside(records, list(samples), references, root)]
    some_captions = None in samples.values() and any(samples.values())
    # A run that is started in the folder writes its own pictures there, which a folder as the table would train on.
    holds_outputs = Path.cwd().is_relative_to(root.resolve())
    is_new = bool(columns or references or broken) or some_captions or holds_outputs
    repeats = [_repeats(file, root) for file in samples]
    return DataFolder(
        root, WRITTEN if is_new else ".", records, tuple(columns), left_out=left_out, notes=_told_repeats(samples, root),
        repeats=repeats if is_new else (), is_new=is_new,
    )  # fmt: skip


def _folder(file: Path, root: Path) -> str:
    """The sub-folder that a file is in, directly or below; empty for none."""
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _check_name(file: Path) -> None:
    try:
        file.as_posix().encode()
    except UnicodeEncodeError:
        raise refusal(f"--data: the file {file.as_posix()!a} has a name that is not UTF-8; rename it") from None


def _left_out(contents: Contents, root: Path) -> list[str]:
    """What the trainer would tell of a folder, without what earlier runs and this command have left in it."""
    others = {
        what: kept
        for what, files in contents.left_out.items()
        if (kept := [file for file in files if file.name != WRITTEN and OUTPUTS not in file.relative_to(root).parts])
        and what != TABLES
    }
    return told(others, root)


def _broken(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """Pictures that cannot be read, and why; none where Pillow is not installed."""
    try:
        from adapter_trainer.data.verify import check_picture  # brings NumPy and Pillow
    except ModuleNotFoundError:
        return {}

    def fault(file: Path) -> str | None:
        try:
            check_picture(file, "decode")
        except InvalidData as error:
            return f"{file.relative_to(root)}{str(error).removeprefix(file.name)}"
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        found = zip(files, pool.map(fault, files[:DECODED]), strict=False)
        return {file: message for file, message in found if message is not None}


# --- names of folders ---


def _repeats(file: Path, root: Path) -> int:
    concept = concept_of(_folder(file, root))
    return 1 if concept is None else concept[0]


def _told_repeats(samples: Sequence[Path] | dict[Path, Any], root: Path) -> tuple[str, ...]:
    folders = dict.fromkeys(_folder(file, root) for file in samples)
    found = ((folder, concept_of(folder)) for folder in folders)
    return tuple(
        f"{folder}: its pictures are read {concept[0]} times as often as those of a folder without a number before its name"
        for folder, concept in found
        if concept is not None and concept[0] > 1
    )


def _caption(given: Caption, file: Path, root: Path) -> Caption:
    """In one line each; without a file of its own, what the name of a folder such as 10_cat gives."""
    if given is None:
        concept = concept_of(_folder(file, root))
        return None if concept is None else concept[1]
    return " ".join(given.split()) if isinstance(given, str) else [" ".join(text.split()) for text in given]


def _classes(records: list[Record], samples: Sequence[Path], root: Path) -> list[FoundColumn]:
    """A label, where every picture is in a sub-folder; 10_cat and cat are one class."""
    folders = [_folder(file, root) for file in samples]
    names = [(concept[1] if (concept := concept_of(folder)) is not None else "") or folder for folder in folders]
    classes = tuple(sorted(set(names)))
    if "" in folders or not 2 <= len(classes) <= MAX_CLASSES:
        return []
    _give(records, "label", [classes.index(name) for name in names])
    return [FoundColumn("label", "label", len(classes), classes)]


# --- files beside pictures ---


def _beside(
    records: list[Record], samples: Sequence[Path], references: dict[str, Path], root: Path
) -> list[FoundColumn]:
    columns = [
        _files(records, samples, "embedding", [_embedding(file, root) for file in samples], root),
        _files(records, samples, "reference", [references.get(file.stem) for file in samples], root),
    ]
    return [column for column in columns if column is not None]


def _files(
    records: list[Record], samples: Sequence[Path], name: str, beside: Sequence[Path | None], root: Path
) -> FoundColumn | None:
    found = [file.relative_to(root).as_posix() for file in beside if file is not None]
    if not found:
        return None
    if len(found) < len(samples):
        first = next(file for file, other in zip(samples, beside, strict=True) if other is None)
        raise refusal(
            f"--data {root}: {len(found)} of {len(samples)} pictures have a file for {name}; {first} has none"
        )
    _give(records, name, found)
    return FoundColumn(
        name, "embedding" if name == "embedding" else "reference", None, (), tuple(dict.fromkeys(found))[:EXAMPLES]
    )


def _give(records: list[Record], name: str, values: Sequence[Any]) -> None:
    for record, value in zip(records, values, strict=True):
        record[name] = value


def _embedding(picture: Path, root: Path) -> Path | None:
    places = [picture.with_suffix(ending) for ending in EMBEDDINGS]
    places += [root / "embeddings" / f"{picture.stem}{ending}" for ending in EMBEDDINGS]
    return next((place for place in places if place.is_file()), None)
