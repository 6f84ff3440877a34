"""Which checkpoints go, and how: first out of the index, then the manifest, then the data; the newest never."""

import logging
import re
from collections.abc import Collection

from adapter_agent import index, start
from adapter_agent.index import Claim
from adapter_agent.store import Store
from adapter_api.checkpoint import MANIFEST_NAME, CheckpointIndex, IndexEntry, folder_name, step_of

log = logging.getLogger(__name__)


def expired(current: CheckpointIndex, keep_last: int) -> tuple[IndexEntry, ...]:
    """The entries that are not among the newest `keep_last`, which counts at least one."""
    return current.checkpoints[: -max(keep_last, 1)]


def retain(store: Store, claim: Claim, keep_last: int) -> tuple[int, ...]:
    """Removes all but the newest `keep_last` checkpoints; returns the steps that went.

    An interruption leaves data that the index does not name, which the next attempt's sweep removes.
    """
    dropped: list[int] = []

    def without_expired(current: CheckpointIndex) -> CheckpointIndex:
        # Gathered over tries: a change whose reply was lost has happened, and shows nothing to drop the next time.
        dropped.extend(entry.step for entry in expired(current, keep_last) if entry.step not in dropped)
        return _without(current, dropped)

    index.change(store, claim, without_expired)
    for step in dropped:
        remove_data(store, step)
        log.info("removed checkpoint %d: the newest %d are kept", step, keep_last)
    return tuple(dropped)


def forget(store: Store, claim: Claim, steps: Collection[int]) -> CheckpointIndex:
    """Takes checkpoints that cannot be used out of the index."""
    return index.change(store, claim, lambda current: _without(current, steps))


def _without(current: CheckpointIndex, steps: Collection[int]) -> CheckpointIndex:
    kept = tuple(entry for entry in current.checkpoints if entry.step not in steps)
    return current.model_copy(update={"checkpoints": kept})


def sweep(store: Store, claim: Claim) -> tuple[int, ...]:
    """Removes checkpoint folders that the index does not name: what older attempts left unfinished.

    Called before this attempt writes its first checkpoint, so nothing unnamed is its own.
    """
    swept = []
    for step in sorted(step for name in store.folders() if (step := step_of(name)) is not None):
        # Read for each folder: a newer attempt may have claimed, and committed this step, a moment ago.
        # Some stores go on listing a folder that has just become empty, so that nothing is removed.
        if index.read_owned(store, claim).index.entry(step) is None and remove_data(store, step):
            swept.append(step)
            log.info("removed %s, which was never committed", store.uri_of(folder_name(step)))
    store.abort_uploads("checkpoint-")
    store.delete(*_marks_before(store, claim.attempt))
    return tuple(swept)


def _marks_before(store: Store, attempt: int) -> list[str]:
    """Announcements and probes of older attempts; a newer one's probe is none of ours, and must not go under its hands."""
    names = ((facts.key, facts.key.partition(prefix)[2]) for prefix in (start.FOLDER, index.PROBE) for facts in store.list(prefix))  # fmt: skip
    found = ((key, re.match(r"\d{1,18}(?=[.-])", name)) for key, name in names)
    return [key for key, number in found if number is not None and int(number[0]) < attempt]


def remove_data(store: Store, step: int) -> int:
    """Deletes a checkpoint's objects, the manifest before the data that it describes; returns how many there were."""
    folder = folder_name(step)
    keys = [facts.key for facts in store.list(f"{folder}/")]
    manifest = f"{folder}/{MANIFEST_NAME}"
    if manifest in keys:
        store.delete(manifest)
    store.delete(*(key for key in keys if key != manifest))
    return len(keys)
