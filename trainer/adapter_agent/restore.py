"""Brings a committed checkpoint into a local folder, complete or absent, with every byte verified."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapter_agent import content, download, index, local, parallel
from adapter_agent.errors import Damaged, NothingThere, ObjectMissing, disk_error
from adapter_agent.multipart import OnBytes, ignore_bytes
from adapter_agent.store import Store
from adapter_agent.transfer import receive
from adapter_api.checkpoint import (
    MANIFEST_NAME,
    CheckpointIndex,
    CheckpointManifest,
    FileEntry,
    IndexEntry,
    folder_name,
)

PARALLEL_FILES = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """A manifest that is the one that the index names, and the bytes that it was read from."""

    manifest: CheckpointManifest
    body: bytes


def read_manifest(store: Store, entry: IndexEntry) -> Verified:
    """The manifest of a committed checkpoint.

    Raises:
        Damaged: not what was committed, or it names files that are never accepted.
        ObjectMissing: it is gone.
    """
    key = f"{folder_name(entry.step)}/{MANIFEST_NAME}"
    body, _ = store.get(key)
    if (found := local.facts_of_bytes(body).sha256) != entry.manifest_sha256:
        raise Damaged(f"{store.uri_of(key)}: has SHA-256 {found}, the index says {entry.manifest_sha256}")
    try:
        manifest = CheckpointManifest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(f"{store.uri_of(key)}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if manifest.step != entry.step:
        raise Damaged(f"{store.uri_of(key)}: describes step {manifest.step}, not {entry.step}")
    for file in manifest.files:
        content.refuse_name(file.path)
    return Verified(manifest, body)


def fetch(
    store: Store, verified: Verified, folder: Path, on_bytes: OnBytes = ignore_bytes, *, resume: bool = False
) -> None:
    """Downloads a checkpoint to `folder`, which appears when it is whole; a folder that already equals it is kept.

    With `resume`, what a broken download has left beside it is gone on with, and left there again if this one breaks off.

    Raises:
        Damaged: a file is not what the manifest says, also on a second look.
        ObjectMissing: a file is gone.
        StorageFull: the local disk is full.
    """
    manifest = verified.manifest
    if local.equals(folder, manifest):
        log.info("%s is already there and whole", folder)
        return
    partial = folder.with_name(f".{folder.name}.partial")
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)

    def fetch_file(file: FileEntry) -> None:
        key = f"{folder_name(manifest.step)}/{file.path}"
        if resume:
            download.receive(store, key, partial / file.path, file, on_bytes)
            return
        receive(store, key, partial / file.path, file.size, file.sha256, only_safe=True, on_bytes=on_bytes)

    try:
        partial.mkdir(parents=True, exist_ok=resume)
        if resume:
            _remove_unnamed(partial, manifest)
        parallel.each(fetch_file, manifest.files, PARALLEL_FILES)
        local.write_whole(partial / MANIFEST_NAME, verified.body)
        for parent in {(partial / file.path).parent for file in manifest.files}:
            local.sync_folder(parent)
        if folder.exists():
            local.remove_folders([folder])
        partial.rename(folder)
        local.sync_folder(folder.parent)
    except OSError as error:
        raise disk_error(error, f"restoring {folder}") from error
    finally:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)


def _remove_unnamed(partial: Path, manifest: CheckpointManifest) -> None:
    """What a broken download of another checkpoint of the same step has left would go into the folder."""
    named = {partial / file.path for file in manifest.files}
    named |= {path.with_name(f".{path.name}.partial") for path in named}
    for path in [path for path in partial.rglob("*") if not path.is_dir() and path not in named]:
        path.unlink()


def fetch_checkpoint(
    store: Store, step: int | None, folder: Path, on_bytes: OnBytes = ignore_bytes, *, resume: bool = False
) -> CheckpointManifest:
    """Downloads the committed checkpoint of `step`, by default the newest, to `folder`.

    Raises:
        NothingThere: the address holds no such checkpoint.
        Damaged, ObjectMissing, StorageFull: as `fetch`.
    """
    verified = read_manifest(store, committed_entry(store, step))
    fetch(store, verified, folder, on_bytes, resume=resume)
    return verified.manifest


def committed_entry(store: Store, step: int | None) -> IndexEntry:
    """The committed checkpoint of `step`, by default the newest.

    Raises:
        NothingThere: there is none.
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
class Restored:
    """What was restored, and which newer checkpoints could not be used."""

    entry: IndexEntry
    unusable: tuple[int, ...]


def fetch_newest_usable(store: Store, current: CheckpointIndex, place: Callable[[int], Path]) -> Restored | None:
    """Downloads the newest checkpoint that is whole to `place(step)`; None where the index names none.

    Raises:
        Damaged: there are checkpoints, and none can be used: starting afresh is for a person to decide.
    """
    unusable: list[int] = []
    for entry in reversed(current.checkpoints):
        try:
            fetch(store, read_manifest(store, entry), place(entry.step))
        except (Damaged, ObjectMissing) as error:
            log.error("CHECKPOINT %d CANNOT BE USED: %s; going back to the one before it", entry.step, error)  # noqa: TRY400
            unusable.append(entry.step)
        else:
            return Restored(entry, tuple(unusable))
    if unusable:
        raise Damaged(
            f"{store.uri}: none of the committed checkpoints can be used (steps {', '.join(map(str, unusable))}); "
            "repair the objects named above, or choose another output address to start afresh"
        )
    return None
