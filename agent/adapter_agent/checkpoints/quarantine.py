"""Checkpoints that turned out to be damaged: out of the index for good, their files aside for whoever looks into it.

    <output uri>/quarantine/checkpoint-<step>-attempt-<n>/...

The files are copied before the index changes, so that what it names as quarantined is there. Then the old place is
cleared, or swept by the next attempt like anything that the index does not name: training may commit the step anew.
"""

import logging
from collections.abc import Collection, Iterable
from datetime import datetime

from adapter_agent import parallel
from adapter_agent.checkpoints import index
from adapter_agent.checkpoints.fetch import Unusable
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import ObjectMissing
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_api.checkpoint import CheckpointIndex, IndexEntry, Quarantined, folder_name

FOLDER = "quarantine"
PARALLEL_COPIES = 4
MAX_REASON = 1024

log = logging.getLogger(__name__)


def quarantine(store: Store, claim: Claim, found: Iterable[Unusable], now: datetime) -> tuple[Quarantined, ...]:
    """Puts checkpoints aside that cannot be used; returns all that the index knows of. May be repeated.

    Raises:
        Fenced: a newer attempt owns the output; it decides.
    """
    damaged, records = tuple(found), []
    copied: dict[str, list[str]] = {}
    for unusable in damaged:
        aside = folder_aside(unusable.entry)
        copied[unusable.entry.manifest_sha256] = _copy(store, f"{unusable.entry.folder}/", f"{aside}/")
        records.append(_record(store, unusable, aside, now))
        log.error("CHECKPOINT %d IS QUARANTINED: its files are in %s", unusable.entry.step, store.uri_of(aside))
    known = index.change(store, claim, lambda current: _without(current, records)).quarantined
    for unusable in damaged:
        # Read for each: a newer attempt may have claimed, and committed this step, a moment ago.
        if index.read_owned(store, claim).index.entry(unusable.entry.step) is None:
            store.delete(*copied[unusable.entry.manifest_sha256])  # whoever has put them there: all of it is kept aside
    return known


def folder_aside(entry: IndexEntry) -> str:
    """Where a checkpoint's files go."""
    return f"{FOLDER}/{folder_name(entry.step)}-attempt-{entry.attempt}"


def _record(store: Store, unusable: Unusable, aside: str, now: datetime) -> Quarantined:
    entry = unusable.entry
    return Quarantined(
        step=entry.step, attempt=entry.attempt, manifest_sha256=entry.manifest_sha256, uri=store.uri_of(aside),
        reason=unusable.reason[:MAX_REASON], found_at=now,
    )  # fmt: skip


def _without(current: CheckpointIndex, records: Collection[Quarantined]) -> CheckpointIndex:
    damaged = {record.manifest_sha256: record for record in records}
    known = {record.manifest_sha256 for record in current.quarantined}
    usable = tuple(entry for entry in current.checkpoints if entry.manifest_sha256 not in damaged)
    new = tuple(record for digest, record in damaged.items() if digest not in known)
    if len(usable) == len(current.checkpoints) and not new:
        return current
    return current.model_copy(update={"checkpoints": usable, "quarantined": (*current.quarantined, *new)})


def _copy(store: Store, source: str, target: str) -> list[str]:
    """Copies every object below `source` within the store, unless it has been copied before; returns their keys."""
    there = {facts.key.removeprefix(target): facts.size for facts in store.list(target)}

    def copy(facts: ObjectFacts) -> None:
        name = facts.key.removeprefix(source)
        if there.get(name) == facts.size:
            return
        try:
            store.copy(facts.key, f"{target}{name}", facts.size)
        except ObjectMissing as error:
            log.warning("it is gone, and cannot be kept: %s", error)

    there_now = list(store.list(source))
    parallel.each(copy, there_now, PARALLEL_COPIES)
    return [facts.key for facts in there_now]
