"""Where an attempt starts: node 0 decides and verifies it, announces it in storage, and the other nodes follow.

    <output uri>/attempts/<attempt>.json

Without it, a node that finds a checkpoint damaged, or reads another run's index a moment later, could start elsewhere.
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from adapter_agent import local_files
from adapter_agent.backoff import Deadline
from adapter_agent.checkpoints import index, layout
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import NothingThere, ObjectMissing
from adapter_agent.storage.store import Store
from adapter_api.base import Count, ResourceModel
from adapter_api.checkpoint import CheckpointIndex, CheckpointManifest, Sha256

START_WAIT_SECONDS = 3600.0
"""Seconds for which other nodes wait for node 0 to restore."""
_CLAIM_FILE = "claim.json"


class Source(ResourceModel):
    """The checkpoint that an attempt starts from."""

    uri: str
    step: Count
    manifest_sha256: Sha256


class Start(ResourceModel):
    """What node 0 announces, and what every node keeps for its `sync`."""

    schema_version: Literal[1] = 1
    attempt: Count
    nonce: str
    run: str = ""
    """The run of the attempt; empty if an older build started it."""
    source: Source | None = None
    """None: training starts from the beginning."""
    exported: CheckpointManifest | None = None
    """Manifest of the source, if the source is a folder by itself and not the output of a run."""
    checksums_ignored: bool = False
    """Whether the store has accepted a body with a wrong checksum: uploads are then compared in another way."""
    warning: str | None = None
    """Why the attempt starts from an older checkpoint than the newest committed one."""

    @property
    def claim(self) -> Claim:
        """Returns the claim that this attempt holds."""
        return Claim(self.attempt, self.nonce, self.run)


def announce(store: Store, start: Start) -> None:
    """Announces the start to the other nodes. Only the owner of the claim calls this, so it replaces only its own object."""
    store.put(layout.announcement_key(start.attempt), start.model_dump_json(indent=2).encode())


def await_start(store: Store, claim: Claim) -> Start:
    """Returns what node 0 has announced.

    Raises:
        Fenced: A newer attempt owns the output.
        WaitedTooLong: Node 0 has announced nothing in time.
    """
    deadline = Deadline(START_WAIT_SECONDS, f"node 0 to restore {store.uri}; look at its log")
    while True:
        index.read_owned(store, claim)
        start = announced(store, claim.attempt)
        if start is not None and start.claim == claim:
            return start
        deadline.pause()


def announced_source(store: Store, current: CheckpointIndex) -> Source | None:
    """Returns the start of the attempt that owns the output, if it has announced one."""
    start = announced(store, current.attempt)
    return start.source if start is not None and start.nonce == current.nonce else None


def announced(store: Store, attempt: int) -> Start | None:
    """Returns what an attempt has announced; None if there is nothing usable."""
    try:
        start = Start.model_validate_json(store.get(layout.announcement_key(attempt))[0])
    except (ObjectMissing, ValidationError):
        return None
    return start if start.attempt == attempt else None


def keep(folders: local_files.Folders, start: Start) -> None:
    """Keeps the start on the disk for `sync`, and for a `restore` that runs again."""
    local_files.write_whole(folders.agent / _CLAIM_FILE, start.model_dump_json(indent=2).encode())


def kept(folders: local_files.Folders) -> Start | None:
    """Returns the start that `keep` has kept; None if there is nothing usable."""
    try:
        return Start.model_validate_json(Path(folders.agent, _CLAIM_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def required(folders: local_files.Folders, attempt: int) -> Start:
    """Returns the start that `restore` has kept for this attempt.

    Raises:
        NothingThere: `restore` has not run to its end on this node.
    """
    start = kept(folders)
    if start is None or start.attempt != attempt:
        raise NothingThere(f"{folders.agent}: attempt {attempt} has not been restored here; run `restore` first")
    return start
