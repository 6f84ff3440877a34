"""Downloads a committed checkpoint to a local folder, complete or not at all, with every byte verified."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapter_agent import local_files, parallel
from adapter_agent.checkpoints import index
from adapter_agent.errors import Damaged, NothingThere, ObjectMissing, UnreliableConnection, disk_error
from adapter_agent.storage import content
from adapter_agent.storage.download import DOWNLOADS, partial_of, receive
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import (
    MANIFEST_NAME,
    CheckpointIndex,
    CheckpointManifest,
    FileEntry,
    IndexEntry,
)

PARALLEL_FILES = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """A manifest that equals the one that the index names, and the bytes that it was read from."""

    manifest: CheckpointManifest
    body: bytes
    folder: str
    """Returns the key of the checkpoint's folder; empty if the checkpoint is at the address itself."""


def read_manifest(store: Store, entry: IndexEntry) -> Verified:
    """Returns the manifest of a committed checkpoint.

    Raises:
        Damaged: It is not what was committed, or it names files that are never accepted.
        ObjectMissing: It is gone.
    """
    key = f"{entry.folder}/{MANIFEST_NAME}"
    body = _expected_body(store, key, entry.manifest_sha256)
    try:
        manifest = CheckpointManifest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(f"{store.uri_of(key)}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if manifest.step != entry.step:
        raise Damaged(f"{store.uri_of(key)}: describes step {manifest.step}, not {entry.step}")
    for file in manifest.files:
        content.refuse_name(file.path)
    return Verified(manifest, body, entry.folder)


def _expected_body(store: Store, key: str, sha256: str) -> bytes:
    """Reads twice, as with files: equal wrong content is what storage holds; content that differs says nothing about it."""
    seen: set[str] = set()
    while len(seen) < DOWNLOADS:
        body, _ = store.get(key)
        found = local_files.facts_of_bytes(body).sha256
        if found == sha256:
            return body
        if found in seen:
            raise Damaged(f"{store.uri_of(key)}: has SHA-256 {found}, the index says {sha256}")
        seen.add(found)
    raise UnreliableConnection(f"{store.uri_of(key)} at {store.endpoint}: arrived damaged, differently each time")


def fetch(store: Store, verified: Verified, folder: Path, on_bytes: OnBytes = ignore_bytes) -> None:
    """Downloads a checkpoint to `folder`, which appears when it is whole. A folder that already equals it is kept.

    An interrupted download continues: files whose digests agree are kept, and the beginnings of others as well.

    Raises:
        Damaged: A file is not what the manifest says, also when it is read again.
        ObjectMissing: A file is gone.
        StorageFull: The local disk is full.
    """
    manifest = verified.manifest
    prefix = f"{verified.folder}/" if verified.folder else ""
    if local_files.equals(folder, manifest):
        log.info("%s is already there and whole", folder)
        return
    partial = folder.with_name(f".{folder.name}.partial")

    def download(file: FileEntry) -> None:
        target = partial / file.path
        if local_files.holds(target, file):
            on_bytes(file.size)
            return
        receive(
            store, f"{prefix}{file.path}", target, Expected(file.size, file.sha256), only_safe=True, on_bytes=on_bytes
        )

    try:
        partial.mkdir(parents=True, exist_ok=True)
        _remove_strangers(partial, manifest)
        parallel.each(download, manifest.files, PARALLEL_FILES)
        local_files.write_whole(partial / MANIFEST_NAME, verified.body)
        for parent in {(partial / file.path).parent for file in manifest.files}:
            local_files.sync_folder(parent)
        if folder.exists():
            local_files.remove_folders([folder])
        partial.rename(folder)
        local_files.sync_folder(folder.parent)
    except (Damaged, ObjectMissing):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        raise disk_error(error, f"restoring {folder}") from error


def _remove_strangers(partial: Path, manifest: CheckpointManifest) -> None:
    """Removes files of an interrupted download of another checkpoint, which would otherwise become part of this one."""
    expected = {partial / file.path for file in manifest.files}
    expected |= {partial_of(path) for path in expected}
    for path in [path for path in partial.rglob("*") if path.is_symlink() or not path.is_dir()]:
        if path not in expected or path.is_symlink():
            path.unlink()


def fetch_checkpoint(
    store: Store, step: int | None, folder: Path, on_bytes: OnBytes = ignore_bytes
) -> CheckpointManifest:
    """Downloads the committed checkpoint of `step`, by default the newest, to `folder`.

    Raises:
        NothingThere: The address holds no such checkpoint.
        Damaged, ObjectMissing, StorageFull: See `fetch`.
    """
    verified = read_manifest(store, committed_entry(store, step))
    fetch(store, verified, folder, on_bytes)
    return verified.manifest


def committed_entry(store: Store, step: int | None) -> IndexEntry:
    """Returns the entry of the committed checkpoint of `step`, by default the newest.

    Raises:
        NothingThere: There is none.
    """
    held = index.read(store)
    current = CheckpointIndex(attempt=0, nonce="") if held is None else held.index
    entry = current.newest if step is None else current.entry(step)
    if entry is None:
        there = ", ".join(str(each.step) for each in current.checkpoints) or "none"
        wanted = "a checkpoint" if step is None else f"checkpoint {step}"
        raise NothingThere(f"{store.uri} holds no committed {wanted.removeprefix('a ')}; committed steps: {there}")
    return entry


@dataclass(frozen=True)
class Unusable:
    """A committed checkpoint that cannot be used."""

    entry: IndexEntry
    reason: str


@dataclass(frozen=True)
class Restored:
    """The checkpoint that was restored, and the newer ones that could not be used."""

    entry: IndexEntry
    unusable: tuple[Unusable, ...]


def fetch_newest_usable(store: Store, current: CheckpointIndex, place: Callable[[int], Path]) -> Restored | None:
    """Downloads the newest checkpoint that is whole to `place(step)`. Returns None if the index names none.

    Raises:
        Damaged: There are checkpoints, and none can be used: only a person can decide to start from the beginning.
    """
    unusable: list[Unusable] = []
    for entry in reversed(current.checkpoints):
        try:
            fetch(store, read_manifest(store, entry), place(entry.step))
        except (Damaged, ObjectMissing) as error:
            log.error("CHECKPOINT %d CANNOT BE USED: %s; going back to the one before it", entry.step, error)  # noqa: TRY400
            unusable.append(Unusable(entry, str(error)))
        else:
            return Restored(entry, tuple(unusable))
    if unusable:
        steps = ", ".join(str(each.entry.step) for each in unusable)
        raise Damaged(
            f"{store.uri}: none of the committed checkpoints can be used (steps {steps}); "
            "repair the objects named above, or choose another output address to start afresh"
        )
    return None
