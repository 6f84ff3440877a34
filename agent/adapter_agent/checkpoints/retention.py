"""Removes checkpoints: first from the index; and when no client can be reading them any more, the manifest, then the data."""

import logging
import re
from collections.abc import Callable, Collection
from datetime import datetime

from adapter_agent.checkpoints import claims, index, layout, probe, removal
from adapter_agent.checkpoints.index import Claim
from adapter_agent.storage import open_uploads
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import ATTEMPTS, CheckpointIndex
from adapter_api.retention import Candidate, Policy, kept

log = logging.getLogger(__name__)


def expired(current: CheckpointIndex, policy: Policy, in_use: Collection[int] = ()) -> frozenset[int]:
    """Returns the steps that the policy does not keep; `in_use` are steps that a run restores from."""
    candidates = [Candidate(entry.step, entry.metrics, entry.pinned) for entry in current.checkpoints]
    return frozenset(candidate.step for candidate in candidates) - kept(candidates, policy, in_use)


def metric_missing(current: CheckpointIndex, policy: Policy) -> str | None:
    """Returns a warning if no checkpoint has the metric that selects the best ones."""
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
    """Removes the checkpoints that the policy does not keep from the index, which remembers them for `delete_due`."""

    def without_expired(current: CheckpointIndex) -> CheckpointIndex:
        gone = expired(current, policy, in_use)
        return current.without(gone, delete_after) if gone else current

    return index.change(store, claim, without_expired)


def delete_due(store: Store, owner: Claim | None, now: datetime) -> CheckpointIndex:
    """Deletes the objects of removed checkpoints whose time has come, then forgets them. It may be repeated.

    Args:
        store: The output.
        owner: The attempt that deletes; None for a person, who deletes whichever attempt owns the output.
        now: Removals up to this time are due.
    """
    current = index.current(store, owner)
    due = [removal for removal in current.removals if removal.delete_after <= now]
    if not due:
        return current
    for each in due:
        # Read for each: a newer attempt may have committed this step anew a moment ago.
        held = index.current(store, owner)
        if held.entry(each.step) is None:
            removal.remove_committed(store, each, held.run)
            log.info("deleted checkpoint %d, which left the index before", each.step)

    def without_due(held: CheckpointIndex) -> CheckpointIndex:
        return held.model_copy(update={"removals": tuple(each for each in held.removals if each not in due)})

    return index.change(store, owner, without_due)


def sweep(
    store: Store, claim: Claim, now: datetime, is_needed: Callable[[int, str], bool] = lambda _step, _folder: False
) -> tuple[int, ...]:
    """Removes what older attempts of this run left unfinished: marked objects in folders that the index does not name.

    Called before this attempt writes its first checkpoint, so nothing unnamed is its own. Removed checkpoints that may
    still be fetched stay; but not those that training will reach once more, after it had to go back.

    Args:
        store: The output.
        claim: This attempt's.
        now: Removals up to then are due.
        is_needed: Whether the folder of a step, by its key, is to stay for another reason.
    """
    swept = []
    for step, folder in sorted(layout.checkpoint_folders(store, scoped=not store.conditional)):
        # Read for each folder: a newer attempt may have claimed, and committed this step, a moment ago.
        # Some stores go on listing a folder that has just become empty, so that nothing is removed.
        current = index.read_owned(store, claim).index
        named = {entry.folder for entry in current.checkpoints} | _still_fetched(current, now)
        if folder not in named and not is_needed(step, folder) and _clear(store, claim, current, folder):
            swept.append(step)
            log.info("cleared %s, which the index does not name", store.uri_of(folder))
    index.change(store, claim, lambda current: _without_deleted(current, now))
    _remove_traces(store, claim)
    return tuple(swept)


def _clear(store: Store, claim: Claim, current: CheckpointIndex, folder: str) -> int:
    before = next((each for each in current.removals if each.folder == folder), None)
    if before is not None:
        return removal.remove_committed(store, before, current.run)
    return removal.remove_leftovers(store, folder, current.run, claim.attempt)


def _still_fetched(current: CheckpointIndex, now: datetime) -> set[str]:
    """Returns the folders of removed checkpoints that a client may be fetching and that training does not reach again."""
    newest = -1 if current.newest is None else current.newest.step
    return {each.folder for each in current.removals if each.delete_after > now and each.step < newest}


def _without_deleted(current: CheckpointIndex, now: datetime) -> CheckpointIndex:
    there = _still_fetched(current, now)
    return current.model_copy(update={"removals": tuple(each for each in current.removals if each.folder in there)})


_TRACE = re.compile(
    rf"{ATTEMPTS}([0-9]{{1,18}})(\.json|/intent|/index-[0-9]{{1,18}}\.json|/uploads/[0-9a-f]{{16}}\.json)"
    rf"|{probe.PREFIX}([0-9]{{1,18}})-[0-9a-f]{{32}}(?:-[0-9]{{1,2}}|-parts)?"
)
"""Keys that no other program writes: announcements, intents, indexes and uploads of attempts, and probes."""


def _remove_traces(store: Store, claim: Claim) -> None:
    """Removes announcements, probes and open uploads of older attempts; a newer attempt's probe may still be running."""
    found = [matched for prefix in (ATTEMPTS, probe.PREFIX) for facts in store.list(prefix) if (matched := _TRACE.fullmatch(facts.key))]  # fmt: skip
    older = [matched for matched in found if int(matched[1] or matched[3]) < claim.attempt]
    uploads = {matched[0]: int(matched[1]) for matched in older if "/uploads/" in matched[0]}
    for attempt in sorted(set(uploads.values())):
        open_uploads.end_recorded(store, attempt)
    announced = {matched[0]: int(matched[1]) for matched in older if matched[2] == ".json"}
    others = [key for key, attempt in announced.items() if not _is_own(claims.announced(store, attempt), claim)]
    store.delete(*(matched[0] for matched in older if matched[0] not in uploads and matched[0] not in others))


def _is_own(announced: claims.Start | None, claim: Claim) -> bool:
    return announced is not None and announced.run in {"", claim.run}
