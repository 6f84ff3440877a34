"""Where an attempt starts: decided and verified by node 0, announced in storage, followed by the other nodes.

    <output uri>/attempts/<attempt>.json

Without it, a node that finds a checkpoint damaged, or another run's index a moment later, could start elsewhere.
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
"""How long other nodes wait for node 0 to have restored."""
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
    """The run that the attempt is of; empty where an older build has begun it."""
    source: Source | None = None
    """None: from the beginning."""
    exported: CheckpointManifest | None = None
    """What the source holds, where it is no run's output but a folder that stands alone."""
    checksums_ignored: bool = False
    """Whether the store was seen to take a body whose checksum was wrong: what is sent is then compared another way."""
    warning: str | None = None
    """Why the attempt starts from an older checkpoint than the newest committed one."""

    @property
    def claim(self) -> Claim:
        """The claim that this attempt holds."""
        return Claim(self.attempt, self.nonce, self.run)


def announce(store: Store, start: Start) -> None:
    """Tells the other nodes. Only the owner of the claim calls this, so what it replaces is its own."""
    store.put(layout.announcement_key(start.attempt), start.model_dump_json(indent=2).encode())


def await_start(store: Store, claim: Claim) -> Start:
    """What node 0 has announced.

    Raises:
        Fenced: a newer attempt owns the output.
        WaitedTooLong: node 0 has announced nothing in time.
    """
    deadline = Deadline(START_WAIT_SECONDS, f"node 0 to restore {store.uri}; look at its log")
    while True:
        index.read_owned(store, claim)
        start = announced(store, claim.attempt)
        if start is not None and start.claim == claim:
            return start
        deadline.pause()


def announced_source(store: Store, current: CheckpointIndex) -> Source | None:
    """What the attempt that owns the output has started from, as far as it has been announced."""
    start = announced(store, current.attempt)
    return start.source if start is not None and start.nonce == current.nonce else None


def announced(store: Store, attempt: int) -> Start | None:
    """What an attempt has announced; None if there is nothing usable."""
    try:
        start = Start.model_validate_json(store.get(layout.announcement_key(attempt))[0])
    except (ObjectMissing, ValidationError):
        return None
    return start if start.attempt == attempt else None


def keep(folders: local_files.Folders, start: Start) -> None:
    """Keeps the start for `sync`, and for a `restore` that is run again."""
    local_files.write_whole(folders.agent / _CLAIM_FILE, start.model_dump_json(indent=2).encode())


def kept(folders: local_files.Folders) -> Start | None:
    """What `keep` has kept; None if there is nothing usable."""
    try:
        return Start.model_validate_json(Path(folders.agent, _CLAIM_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def required(folders: local_files.Folders, attempt: int) -> Start:
    """What `restore` has kept for this attempt.

    Raises:
        NothingThere: `restore` has not run to its end here.
    """
    start = kept(folders)
    if start is None or start.attempt != attempt:
        raise NothingThere(f"{folders.agent}: attempt {attempt} has not been restored here; run `restore` first")
    return start
