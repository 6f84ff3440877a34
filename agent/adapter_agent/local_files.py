"""Facts about a node's own folders: which checkpoints are complete, what their files are; and durable writes."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapter_agent import parallel
from adapter_api.checkpoint import MANIFEST_NAME, CheckpointManifest, FileEntry, folder_name, step_of
from adapter_api.layout import AGENT_FOLDER, CACHE_FOLDER, MODELS_FOLDER, OUTPUT_FOLDER

_READERS = 4
"""Files that are hashed at once."""


@dataclass(frozen=True)
class Folders:
    """The parts of a node's work folder."""

    work: Path

    @property
    def output(self) -> Path:
        """What the trainer writes."""
        return self.work / OUTPUT_FOLDER

    @property
    def cache(self) -> Path:
        """What the trainer has encoded."""
        return self.output / CACHE_FOLDER

    @property
    def models(self) -> Path:
        """Models that were staged from object storage."""
        return self.work / MODELS_FOLDER

    @property
    def agent(self) -> Path:
        """What the agent keeps for itself."""
        return self.work / AGENT_FOLDER

    def checkpoint(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.output / folder_name(step)


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 of a file's content."""

    size: int
    sha256: str
    parts: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """CRC32C of each part that it goes up in, in base64; empty where nobody asked."""


def facts_of(path: Path) -> FileFacts:
    """Reads a file once."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return FileFacts(stream.tell(), digest.hexdigest())


def facts_of_bytes(body: bytes) -> FileFacts:
    """The same for content in memory."""
    return FileFacts(len(body), hashlib.sha256(body).hexdigest())


def complete_steps(output: Path) -> list[int]:
    """Steps of the checkpoint folders in `output`, ascending. The trainer renames a folder into place when it is whole."""
    if not output.is_dir():
        return []
    steps = (step_of(entry.name) for entry in output.iterdir() if entry.is_dir() and not entry.is_symlink())
    return sorted(step for step in steps if step is not None)


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths, with slashes, of the regular files below `folder`; hidden ones and links are left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def bytes_below(folder: Path) -> int:
    """What those files hold in all."""
    return sum((folder / path).stat().st_size for path in files_below(folder))


def holds(path: Path, entry: FileEntry) -> bool:
    """Whether a local file is what a manifest's entry says; reads it only if its size agrees."""
    try:
        return path.stat().st_size == entry.size and facts_of(path) == FileFacts(entry.size, entry.sha256)
    except FileNotFoundError:
        return False


def equals(folder: Path, manifest: CheckpointManifest) -> bool:
    """Whether a local folder holds exactly the files of a manifest."""
    expected = {entry.path for entry in manifest.files}
    if not folder.is_dir() or {path for path in files_below(folder) if path != MANIFEST_NAME} != expected:
        return False
    return all(parallel.each(lambda entry: holds(folder / entry.path, entry), manifest.files, _READERS))


def write_whole(path: Path, body: bytes) -> None:
    """Writes a file that readers see complete or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folders(folders: Iterable[Path]) -> None:
    """Removes folders so that none is ever seen in part: each gets a hidden name first."""
    for folder in folders:
        hidden = folder.with_name(f".removed-{folder.name.lstrip('.')}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
