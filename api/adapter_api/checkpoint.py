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
    """What one node uploaded of one checkpoint; its presence says that all of it is there."""

    schema_version: Literal[1] = 1
    step: Count
    attempt: Count
    node: Count
    pass_id: str = ""
    """The start of all training processes that saved it: within an attempt they may be started again, and come by the same step
    once more. Empty in what older builds wrote."""
    files: tuple[FileEntry, ...]


class CheckpointManifest(ResourceModel):
    """Every file of one checkpoint, and what is needed to decide whether it can be used."""

    schema_version: Literal[1] = 1
    step: Count
    attempt: Count
    run: str = ""
    """The run that wrote it, as its objects' marks and the index say; empty in what older builds wrote."""
    pass_id: str = ""
    """The one pass that all of its files are of."""
    nodes: PositiveCount
    world_size: PositiveCount
    created_at: datetime
    files: tuple[FileEntry, ...]
    metrics: dict[str, Real] = {}
    versions: dict[str, str] = {}
    training: TrainingConfig | None = None
    """The configuration that made it, with widths resolved from the data."""

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
    """Whether someone has asked for it to stay, whatever the policy says."""
    scoped: Flag = False
    """Whether it lies below its attempt's own prefix, as on a store without conditional writes."""

    @property
    def folder(self) -> str:
        """Key of its folder."""
        return folder_key(self.attempt, self.step, scoped=self.scoped)


class Removal(ResourceModel):
    """A checkpoint that is in the index no more, and whose objects are still to be deleted."""

    step: Count
    folder: RelativePath
    """Key of its folder."""
    manifest_sha256: Sha256
    delete_after: datetime
    """Until then whoever had read the index before can still fetch it."""


class Quarantined(ResourceModel):
    """A checkpoint that was committed and turned out to be damaged. Nobody restores it; its files are kept aside."""

    step: Count
    attempt: Count
    manifest_sha256: Sha256
    uri: str
    """Where its files are now."""
    reason: str
    """What was wrong with it."""
    found_at: datetime


class CheckpointIndex(ResourceModel):
    """The index, newest checkpoint last. A checkpoint that it does not name does not exist."""

    schema_version: Literal[1] = 1
    attempt: Count
    """The newest attempt that has claimed this output; older ones may change nothing any more."""
    nonce: str
    """Chosen by that attempt, so that it recognises its own write after a lost reply."""
    run: str = ""
    """Chosen when the output was first claimed, or first by a build that knows of it: objects that carry it are this
    run's own."""
    checkpoints: tuple[IndexEntry, ...] = ()
    removals: tuple[Removal, ...] = ()
    """What has been taken out, until its objects are gone; the manifest goes before the data."""
    quarantined: tuple[Quarantined, ...] = ()
    """What was committed and is damaged, kept for whoever looks into it."""

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
