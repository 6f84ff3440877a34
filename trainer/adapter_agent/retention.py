"""How checkpoints go: first out of the index; when nobody can be reading them any more, the manifest, then the data."""

import logging
import re
from collections.abc import Collection, Iterator
from datetime import datetime

from adapter_agent import index
from adapter_agent.index import Claim
from adapter_agent.store import Store
from adapter_api.checkpoint import ATTEMPTS, MANIFEST_NAME, CheckpointIndex, step_of
from adapter_api.retention import Candidate, Policy, kept

log = logging.getLogger(__name__)


def expired(current: CheckpointIndex, policy: Policy, in_use: Collection[int] = ()) -> frozenset[int]:
    """Steps that the policy does not keep; `in_use` are those that someone restores from."""
    candidates = [Candidate(entry.step, entry.metrics, entry.pinned) for entry in current.checkpoints]
    return frozenset(candidate.step for candidate in candidates) - kept(candidates, policy, in_use)


def metric_missing(current: CheckpointIndex, policy: Policy) -> str | None:
    """A warning where no checkpoint has the metric that the best are chosen by."""
    if policy.best is None or not current.checkpoints:
        return None
    names = {name for entry in current.checkpoints for name in entry.metrics}
    if policy.best.metric in names:
        return None
    there = ", ".join(sorted(names)) or "none"
    return f"checkpoint.keep_best.metric: no checkpoint has {policy.best.metric!r}, so none is kept for it; there are: {there}"


def retire(
    store: Store, claim: Claim, policy: Policy, in_use: Collection[int], delete_after: datetime
) -> CheckpointIndex:
    """Takes the checkpoints that the policy does not keep out of the index, which remembers them for `delete_due`."""

    def without_expired(current: CheckpointIndex) -> CheckpointIndex:
        gone = expired(current, policy, in_use)
        return current.without(gone, delete_after) if gone else current

    return index.change(store, claim, without_expired)


def delete_due(store: Store, owner: Claim | None, now: datetime) -> CheckpointIndex:
    """Deletes the objects of removed checkpoints whose time has come, then forgets them. May be repeated.

    Args:
        store: The output.
        owner: The attempt that deletes; None for a person, who deletes whoever owns the output.
        now: Removals up to then are due.
    """
    current = index.current(store, owner)
    due = [removal for removal in current.removals if removal.delete_after <= now]
    if not due:
        return current
    for removal in due:
        # Read for each: a newer attempt may have committed this step anew a moment ago.
        if index.current(store, owner).entry(removal.step) is None:
            remove_data(store, removal.folder)
            log.info("deleted checkpoint %d, which left the index before", removal.step)

    def without_due(held: CheckpointIndex) -> CheckpointIndex:
        return held.model_copy(update={"removals": tuple(each for each in held.removals if each not in due)})

    return index.change(store, owner, without_due)


def sweep(store: Store, claim: Claim, now: datetime) -> tuple[int, ...]:
    """Removes checkpoint folders that the index does not name: what older attempts left unfinished.

    Called before this attempt writes its first checkpoint, so nothing unnamed is its own. Removed checkpoints that may
    still be fetched stay; but not those that training will reach once more, after it had to go back.
    """
    swept = []
    for step, folder in sorted(_folders(store)):
        # Read for each folder: a newer attempt may have claimed, and committed this step, a moment ago.
        # Some stores go on listing a folder that has just become empty, so that nothing is removed.
        current = index.read_owned(store, claim).index
        named = {entry.folder for entry in current.checkpoints} | _still_fetched(current, now)
        if folder not in named and remove_data(store, folder):
            swept.append(step)
            log.info("removed %s, which the index does not name", store.uri_of(folder))
    index.change(store, claim, lambda current: _without_deleted(current, now))
    store.abort_uploads("checkpoint-" if store.conditional else ATTEMPTS)
    store.delete(*_marks_before(store, claim.attempt))
    return tuple(swept)


def _folders(store: Store) -> Iterator[tuple[int, str]]:
    """Step and key of every checkpoint's folder, named by the index or not."""
    if store.conditional:
        yield from ((step, name) for name in store.folders() if (step := step_of(name)) is not None)
        return
    keys = {tuple(facts.key.split("/")[:3]) for facts in store.list(ATTEMPTS) if facts.key.count("/") > 2}
    yield from ((step, "/".join(parts)) for parts in keys if (step := step_of(parts[2])) is not None)


def _still_fetched(current: CheckpointIndex, now: datetime) -> set[str]:
    """Folders of removed checkpoints that someone may be fetching, and that training does not reach once more."""
    newest = -1 if current.newest is None else current.newest.step
    return {removal.folder for removal in current.removals if removal.delete_after > now and removal.step < newest}


def _without_deleted(current: CheckpointIndex, now: datetime) -> CheckpointIndex:
    there = _still_fetched(current, now)
    removals = tuple(removal for removal in current.removals if removal.folder in there)
    return current.model_copy(update={"removals": removals})


def _marks_before(store: Store, attempt: int) -> list[str]:
    """Announcements and probes of older attempts; a newer one's probe is none of ours, and must not go under its hands."""
    names = ((facts.key, facts.key.partition(prefix)[2]) for prefix in (ATTEMPTS, index.PROBE) for facts in store.list(prefix))  # fmt: skip
    # On a store without conditional writes also their indexes, which the own one has replaced.
    found = ((key, re.match(r"\d{1,18}(?=[.-]|/intent$|/index-)", name)) for key, name in names)
    return [key for key, number in found if number is not None and int(number[0]) < attempt]


def remove_data(store: Store, folder: str) -> int:
    """Deletes a checkpoint's objects, the manifest before the data that it describes; returns how many there were."""
    keys = [facts.key for facts in store.list(f"{folder}/")]
    manifest = f"{folder}/{MANIFEST_NAME}"
    if manifest in keys:
        store.delete(manifest)
    store.delete(*(key for key in keys if key != manifest))
    return len(keys)
