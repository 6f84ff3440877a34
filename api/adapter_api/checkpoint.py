"""What object storage holds: the manifest of one checkpoint, and the index that makes checkpoints exist.

<output uri>/checkpoints.json                    the index; the only object that is ever replaced
<output uri>/checkpoint-<step>/...               plain files
<output uri>/checkpoint-<step>/nodes/<n>.json    receipt of node n: what it uploaded
<output uri>/checkpoint-<step>/manifest.json     every file of the checkpoint
<output uri>/quarantine/...                      files of checkpoints that turned out to be damaged

On a store without conditional writes, checkpoints and index lie below attempts/<attempt>/.
"""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from adapter_api.base import Count, Flag, PositiveCount, Real, ResourceModel
from adapter_api.training import TrainingConfig

INDEX_KEY = "checkpoints.json"
ATTEMPTS = "attempts/"
"""Prefix of what each attempt says of itself; on a store without conditional writes, of everything that it writes."""
MANIFEST_NAME = "manifest.json"
_FOLDER = re.compile(r"checkpoint-(0|[1-9][0-9]{0,15})")


def _relative_path(value: str) -> str:
    parts = value.split("/")
    if not value or value.startswith("/") or "\\" in value or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"{value!r} is not a path inside a checkpoint: relative, with / between its parts, without '..'"
        )
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{value!r} contains characters that are not printable ASCII")
    return value


RelativePath = Annotated[str, Field(max_length=512), AfterValidator(_relative_path)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def folder_name(step: int) -> str:
    """Name of the folder that holds the checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder name; None for any other name."""
    matched = _FOLDER.fullmatch(name)
    return int(matched[1]) if matched else None


def folder_key(attempt: int, step: int, *, scoped: bool) -> str:
    """Key of the folder that an attempt writes the checkpoint of a step to."""
    return f"{ATTEMPTS}{attempt}/{folder_name(step)}" if scoped else folder_name(step)


def receipt_name(node: int) -> str:
    """Path of a node's receipt inside a checkpoint."""
    return f"nodes/{node}.json"


class FileEntry(ResourceModel):
    """One file of a checkpoint."""

    path: RelativePath
    size: Count
    sha256: Sha256
    node: Count
    """Index of the node that uploaded it."""


class Receipt(ResourceModel):
    """What one node uploaded for one checkpoint.

    The receipt is written last, so its presence proves that all files arrived.
    """

    schema_version: Literal[1] = 1
    step: Count
    attempt: Count
    node: Count
    pass_id: str = ""
    """Identifies one start of all training processes. The trainer may start again within an attempt and reach the same
    step a second time. Empty in receipts of older builds."""
    files: tuple[FileEntry, ...]


class CheckpointManifest(ResourceModel):
    """Every file of one checkpoint, and what a reader needs to decide whether it can use the checkpoint."""

    schema_version: Literal[1] = 1
    step: Count
    attempt: Count
    run: str = ""
    """Run that wrote the checkpoint: the same value as in the index and in the metadata of its objects. Empty in
    manifests of older builds."""
    pass_id: str = ""
    """The pass that wrote all files of this checkpoint."""
    nodes: PositiveCount
    world_size: PositiveCount
    created_at: datetime
    files: tuple[FileEntry, ...]
    metrics: dict[str, Real] = {}
    versions: dict[str, str] = {}
    training: TrainingConfig | None = None
    """Configuration that produced the checkpoint, with the widths found in the data."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(entry.size for entry in self.files)


class IndexEntry(ResourceModel):
    """One committed checkpoint."""

    step: Count
    attempt: Count
    manifest_sha256: Sha256
    committed_at: datetime
    bytes: Count
    metrics: dict[str, Real] = {}
    pinned: Flag = False
    """Whether a user pinned the checkpoint; no retention policy removes a pinned checkpoint."""
    scoped: Flag = False
    """Whether the folder is below the attempt's own prefix, as on stores without conditional writes."""

    @property
    def folder(self) -> str:
        """Key of its folder."""
        return folder_key(self.attempt, self.step, scoped=self.scoped)


class Removal(ResourceModel):
    """A checkpoint that is no longer in the index and whose objects are still to be deleted."""

    step: Count
    folder: RelativePath
    """Key of the checkpoint's folder."""
    manifest_sha256: Sha256
    delete_after: datetime
    """Time of the earliest deletion. Until then, a reader of the old index can still fetch the checkpoint."""


class Quarantined(ResourceModel):
    """A committed checkpoint that turned out to be damaged.

    No attempt restores it; its files are kept in quarantine/.
    """

    step: Count
    attempt: Count
    manifest_sha256: Sha256
    uri: str
    """Address of the quarantined files."""
    reason: str
    """What is wrong with the checkpoint."""
    found_at: datetime


class CheckpointIndex(ResourceModel):
    """The index of committed checkpoints, newest last. A checkpoint that is not in the index does not exist."""

    schema_version: Literal[1] = 1
    attempt: Count
    """Newest attempt that has claimed this output; older attempts can no longer change the index."""
    nonce: str
    """Random value chosen by that attempt, so that it recognises its own write after a lost reply."""
    run: str = ""
    """Random value chosen when the output was first claimed. Objects that carry it belong to this run."""
    checkpoints: tuple[IndexEntry, ...] = ()
    removals: tuple[Removal, ...] = ()
    """Checkpoints removed from the index whose objects still exist; the manifest is deleted before the data."""
    quarantined: tuple[Quarantined, ...] = ()
    """Damaged checkpoints, kept for inspection."""

    @property
    def newest(self) -> IndexEntry | None:
        """The newest committed checkpoint."""
        return self.checkpoints[-1] if self.checkpoints else None

    def entry(self, step: int) -> IndexEntry | None:
        """The committed checkpoint of a step."""
        return next((entry for entry in self.checkpoints if entry.step == step), None)

    def without(self, steps: Collection[int], delete_after: datetime) -> "CheckpointIndex":
        """The index after these checkpoints were taken out, to be deleted from `delete_after` on."""
        gone = [entry for entry in self.checkpoints if entry.step in steps]
        new = [
            Removal(
                step=entry.step,
                folder=entry.folder,
                manifest_sha256=entry.manifest_sha256,
                delete_after=delete_after,
            )
            for entry in gone
        ]
        removals = (*(known for known in self.removals if known.step not in {entry.step for entry in gone}), *new)
        kept = tuple(entry for entry in self.checkpoints if entry.step not in steps)
        return self.model_copy(update={"checkpoints": kept, "removals": removals})
