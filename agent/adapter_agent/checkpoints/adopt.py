"""Rebuilds the index of an output, where it is lost or damaged, from the checkpoints that verify byte by byte.

What made a checkpoint count was the index; here it is a person's word. The attempt that has announced itself last keeps
the output, so that a run that is going on commits again.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from adapter_agent.checkpoints import attempt_index, claims, index, layout
from adapter_agent.checkpoints.quarantine import FOLDER as QUARANTINE
from adapter_agent.checkpoints.verify import verify
from adapter_agent.errors import ContentConflict, Damaged, IndexDamaged, NothingThere, ObjectMissing, PreconditionFailed
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY, MANIFEST_NAME, CheckpointIndex, CheckpointManifest, IndexEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint whose manifest can be read."""

    entry: IndexEntry
    run: str


@dataclass(frozen=True)
class Refused:
    """A checkpoint's folder that stays out of the index, and as it is."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Adopted:
    """The index as it was rebuilt."""

    index: CheckpointIndex
    refused: tuple[Refused, ...]


def candidates(store: Store) -> tuple[list[Candidate], list[Refused]]:
    """The checkpoints that an index could name, oldest first, and what has a checkpoint's name only.

    Raises:
        ContentConflict: there is an index.
    """
    refuse_readable(store)
    found: dict[int, Candidate] = {}
    refused = []
    scoped = _is_scoped(store)
    for step, folder in sorted(layout.checkpoint_folders(store, scoped=scoped)):
        try:
            candidate = _candidate(store, step, folder, scoped=scoped)
        except (ObjectMissing, Damaged) as error:
            if store.holds_any(f"{folder}/"):
                refused.append(Refused(store.uri_of(folder), str(error)))
            continue
        # Without conditions, attempts may have written the same step: the newer one's counts.
        if step not in found or found[step].entry.attempt < candidate.entry.attempt:
            found[step] = candidate
    return [found[step] for step in sorted(found)], refused


def adopt(store: Store, on_bytes: OnBytes = ignore_bytes) -> Adopted:
    """Reads every byte of every checkpoint, and writes an index of those that are whole.

    Raises:
        ContentConflict: there is an index, or one has appeared meanwhile.
        NothingThere: nothing there is this product's.
    """
    readable, refused = candidates(store)
    whole = []
    for candidate in readable:
        faults = verify(store, candidate.entry, on_bytes)
        if faults:
            refused.append(Refused(store.uri_of(candidate.entry.folder), f"{faults[0].path}: {faults[0].what}"))
        else:
            whole.append(candidate)
    current = _rebuilt(store, whole)
    if current is None:
        reasons = "".join(f"\n  {each.uri}: {each.reason}" for each in refused)
        raise NothingThere(
            f"{store.uri} at {store.endpoint} holds nothing to rebuild an index from; give the run an output address of its own, "
            f"or delete a damaged {INDEX_KEY} that nothing belongs to{reasons}"
        )
    _write(store, current, scoped=_is_scoped(store))
    return Adopted(current, tuple(refused))


def refuse_readable(store: Store) -> None:
    """Raises `ContentConflict` where there is an index that can be read."""
    try:
        held = index.read(store)
    except IndexDamaged:
        return
    if held is not None:
        raise ContentConflict(f"{store.uri} has an index, which names what is committed; there is nothing to rebuild")


def _is_scoped(store: Store) -> bool:
    """Whether attempts have written below prefixes of their own; both ways are never mixed."""
    if store.head(INDEX_KEY) is not None:
        return False
    return bool(attempt_index.look(store).numbers) or any(layout.checkpoint_folders(store, scoped=True))


def _candidate(store: Store, step: int, folder: str, *, scoped: bool) -> Candidate:
    key = f"{folder}/{MANIFEST_NAME}"
    body, _ = store.get(key)
    try:
        manifest = CheckpointManifest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(
            f"{MANIFEST_NAME} is not a manifest ({'.'.join(map(str, fault['loc']))}: {fault['msg']})"
        ) from None
    entry = IndexEntry(
        step=manifest.step, attempt=manifest.attempt, manifest_sha256=hashlib.sha256(body).hexdigest(),
        committed_at=manifest.created_at, bytes=manifest.bytes, metrics=manifest.metrics, scoped=scoped,
    )  # fmt: skip
    if entry.folder != folder or step != manifest.step:
        raise Damaged(f"{MANIFEST_NAME} describes {entry.folder}")
    return Candidate(entry, manifest.run)


def _rebuilt(store: Store, whole: list[Candidate]) -> CheckpointIndex | None:
    announced = [each for each in _announced(store) if each is not None]
    newest = max(announced, key=lambda each: each.attempt, default=None)
    if newest is None and not whole:
        return None
    written = attempt_index.look(store).newest or 0
    attempt = max(written, 0 if newest is None else newest.attempt, *(each.entry.attempt for each in whole), 0)
    runs = [each.run for each in reversed(whole) if each.run]
    nonce = newest.nonce if newest is not None and newest.attempt == attempt else f"adopted-{uuid.uuid4().hex}"
    run = newest.run if newest is not None and newest.run else next(iter(runs), nonce)
    return CheckpointIndex(attempt=attempt, nonce=nonce, run=run, checkpoints=tuple(each.entry for each in whole))


def _announced(store: Store) -> Iterator[claims.Start | None]:
    return (claims.announced(store, attempt) for attempt in layout.announced_attempts(store))


def _write(store: Store, current: CheckpointIndex, *, scoped: bool) -> None:
    try:
        if scoped:
            _write_scoped(store, current)
        elif (damaged := store.head(INDEX_KEY)) is None:
            store.put_if_absent(INDEX_KEY, index.encode(current))
        else:
            refuse_readable(store)
            store.copy(INDEX_KEY, _aside(INDEX_KEY), damaged.size)
            store.replace_if_match(INDEX_KEY, index.encode(current), damaged.etag)
    except PreconditionFailed as error:
        raise ContentConflict(f"{store.uri_of(INDEX_KEY)}: appeared or changed meanwhile; look at it again") from error


def _write_scoped(store: Store, current: CheckpointIndex) -> None:
    written = attempt_index.look(store)
    for key in attempt_index.keys(written, current.attempt):
        found = store.head(key)
        if found is not None:
            store.copy(key, _aside(key), found.size)
    attempt_index.write(store, current, written)


def _aside(key: str) -> str:
    """What cannot be read is kept for whoever looks into it."""
    return f"{QUARANTINE}/{uuid.uuid4().hex[:8]}-{key.replace('/', '-')}"
