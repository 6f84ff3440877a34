"""The index of committed checkpoints: its owner, and its changes by compare-and-swap.

Whatever happens to the reply of a conditional write, the index is read again before anything follows from it: the own
change in it means success, another owner's change means the end, and in any other case the write is tried again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from adapter_agent.backoff import Deadline
from adapter_agent.checkpoints import attempt_index, unexplained
from adapter_agent.checkpoints.attempt_index import Written
from adapter_agent.errors import (
    Damaged,
    EndpointUnreachable,
    Fenced,
    IndexDamaged,
    IndexLost,
    NothingThere,
    ObjectMissing,
    OtherLayout,
    OwnerOnly,
    PreconditionFailed,
)
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY, CheckpointIndex, folder_key

CHANGE_SECONDS = 60.0
"""Seconds for which one change of the index is tried."""
CLAIM_WAIT_SECONDS = 600.0
"""Seconds for which other nodes wait for node 0's claim; the trainers' rendezvous waits as long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """The right of one attempt to change the output, identified by the nonce that it has written into the index."""

    attempt: int
    nonce: str
    run: str = field(default="", compare=False)
    """Run of the index, which everything that this attempt writes carries. Empty until it is known, and for older builds."""


def fenced(index: CheckpointIndex, attempt: int, store: Store) -> Fenced:
    """Returns the error of an attempt that finds another owner in the index."""
    owner = f"attempt {index.attempt}" if index.attempt != attempt else f"another run of attempt {attempt}"
    return Fenced(
        f"{store.uri} belongs to {owner}; attempt {attempt} stops and changes nothing there. "
        "Give every run an output address of its own."
    )


@dataclass(frozen=True)
class Held:
    """The index as it was read, with the ETag that a change of it must match."""

    index: CheckpointIndex
    etag: str
    written: Written | None = None
    """The indexes of attempts, for stores without conditional writes."""


def encode(index: CheckpointIndex) -> bytes:
    """Returns the index as storage holds it."""
    return index.model_dump_json(indent=2).encode() + b"\n"


def read(store: Store) -> Held | None:
    """Reads the index. Returns None if there is none yet.

    Raises:
        IndexDamaged: The object is not an index.
    """
    held = _read_shared(store) if store.conditional else _read_scoped(store)
    # Whoever only reads has not been told which way an output is written; whoever writes must not mix them.
    return held or (_read_scoped(store) if store.conditional else _read_shared(store))


def _read_scoped(store: Store) -> Held | None:
    written, current = attempt_index.read(store)
    return None if current is None else Held(current, "", written)


def _read_shared(store: Store) -> Held | None:
    known = store.parsed.get(INDEX_KEY)
    try:
        # Every node asks again and again, and it may have megabytes.
        read = store.get(INDEX_KEY) if known is None else store.get_if_changed(INDEX_KEY, known[0])
    except ObjectMissing:
        store.parsed.pop(INDEX_KEY, None)
        return None
    except Damaged as error:
        raise IndexDamaged(f"{error}; it can be rebuilt: atj checkpoints adopt {store.uri}") from None
    if known is not None and read is None:
        return Held(known[1], known[0])
    assert read is not None  # noqa: S101 - only a condition leads to nothing
    body, etag = read
    try:
        held = Held(CheckpointIndex.model_validate_json(body), etag)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise IndexDamaged(
            f"{store.uri_of(INDEX_KEY)}: is not an index of checkpoints ({where}: {fault['msg']}); restore the object, or "
            f"rebuild it from the checkpoints that verify: atj checkpoints adopt {store.uri}"
        ) from None
    store.parsed[INDEX_KEY] = etag, held.index
    return held


def read_owned(store: Store, owner: Claim) -> Held:
    """Reads the index, which must carry the claim.

    Raises:
        Fenced: It does not carry the claim, or no longer does.
        IndexLost: The index is gone.
    """
    held = read(store)
    if held is None:
        raise IndexLost(
            f"{store.uri_of(INDEX_KEY)} is gone; attempt {owner.attempt} changes nothing there until it is back: restore "
            f"the object, or rebuild it from the checkpoints that verify: atj checkpoints adopt {store.uri}"
        )
    if (held.index.attempt, held.index.nonce) != (owner.attempt, owner.nonce):
        raise fenced(held.index, owner.attempt, store)
    if held.written is not None:
        _refuse_older(store, owner, held.written)
    return held


def _refuse_older(store: Store, owner: Claim, written: Written) -> None:
    if written.newest is not None and written.newest > owner.attempt:
        raise fenced(CheckpointIndex(attempt=written.newest, nonce=""), owner.attempt, store)


def folder(store: Store, owner: Claim, step: int) -> str:
    """Returns the key of the folder that an attempt writes the checkpoint of a step to."""
    return folder_key(owner.attempt, step, scoped=not store.conditional)


def claim(store: Store, wanted: Claim) -> CheckpointIndex:
    """Claims the output for an attempt. Returns the index, which carries the claim from now on.

    Raises:
        Fenced: A newer attempt owns the output, or another process of the same attempt does.
        IndexLost: There is no index, but there are checkpoints of an unknown owner.
        IndexDamaged: The object in its place is not an index.
    """
    deadline = Deadline(CHANGE_SECONDS, f"a chance to claim {store.uri_of(INDEX_KEY)}")
    while True:
        held = read(store)
        _refuse_other_layout(store, held)
        if held is None:
            unexplained.refuse(store, wanted.attempt)
        if not store.conditional:
            return _claim_scoped(store, wanted, held)
        if held is not None:
            owner = (held.index.attempt, held.index.nonce)
            if owner == (wanted.attempt, wanted.nonce):
                return held.index
            if held.index.attempt >= wanted.attempt:
                raise fenced(held.index, wanted.attempt, store)
        try:
            _write(store, encode(_taken(None if held is None else held.index, wanted)), held)
        except (PreconditionFailed, ObjectMissing, EndpointUnreachable) as error:
            store.parsed.clear()
            log.info("claiming again, the last try's result is unknown: %s", error)
            deadline.pause()


def _taken(before: CheckpointIndex | None, wanted: Claim) -> CheckpointIndex:
    base = before or CheckpointIndex(attempt=0, nonce="")
    # Whoever claims first names the run; and whoever first claims what an older build has begun.
    return base.model_copy(
        update={"attempt": wanted.attempt, "nonce": wanted.nonce, "run": base.run or wanted.run or wanted.nonce}
    )


def _refuse_other_layout(store: Store, held: Held | None) -> None:
    if held is not None and (held.written is None) != store.conditional:
        way = "true" if held.written is None else "false"
        raise OtherLayout(
            f"{store.uri}: its checkpoints were written with output.s3.conditionalWrites: {way}; set it so, "
            "or choose another output address"
        )


def _claim_scoped(store: Store, wanted: Claim, held: Held | None) -> CheckpointIndex:
    """Writes the intent first: what older attempts commit later does not count. Then reads everything that counts until now."""
    _refuse_older(store, wanted, attempt_index.look(store))
    if held is not None and (held.index.attempt, held.index.nonce) == (wanted.attempt, wanted.nonce):
        return held.index
    attempt_index.announce(store, wanted.attempt)
    written, before = attempt_index.read(store)
    _refuse_older(store, wanted, written)
    if before is not None and before.attempt >= wanted.attempt:
        raise fenced(before, wanted.attempt, store)
    attempt_index.write(store, _taken(before, wanted), written)
    return read_owned(store, wanted).index


def current(store: Store, owner: Claim | None) -> CheckpointIndex:
    """Reads the index, which must carry the claim if `owner` is one.

    Raises:
        Fenced: It does not carry the claim, or no longer does.
        NothingThere: There is no index, and no owner that could miss it.
    """
    return _held(store, owner).index


def _held(store: Store, owner: Claim | None) -> Held:
    if owner is not None:
        return read_owned(store, owner)
    held = read(store)
    if held is None:
        raise NothingThere(
            f"{store.uri} at {store.endpoint} holds no {INDEX_KEY}; correct the address, or if it was lost: "
            f"atj checkpoints adopt {store.uri}"
        )
    return held


def change(store: Store, owner: Claim | None, wish: Callable[[CheckpointIndex], CheckpointIndex]) -> CheckpointIndex:
    """Applies `wish`, which returns its argument if there is nothing to change. Returns the index afterwards.

    Without an owner, a person changes the index, whichever attempt owns it; the owner stays the same.

    Raises:
        Fenced: The index no longer carries the claim.
        NothingThere: There is no index.
    """
    deadline = Deadline(CHANGE_SECONDS, f"a chance to change {store.uri_of(INDEX_KEY)}")
    while True:
        held = _held(store, owner)
        wanted = wish(held.index)
        if wanted == held.index:
            return wanted
        try:
            if held.written is not None:
                return _write_scoped(store, owner, wanted, held.written)
            _write(store, encode(wanted), held)
        except (PreconditionFailed, ObjectMissing, EndpointUnreachable) as error:
            store.parsed.clear()
            log.info("reading the index again, the last change's result is unknown: %s", error)
            deadline.pause()
        else:
            return wanted


def _write(store: Store, body: bytes, held: Held | None) -> None:
    if held is None:
        store.put_if_absent(INDEX_KEY, body)
    else:
        store.replace_if_match(INDEX_KEY, body, held.etag)


def _write_scoped(store: Store, owner: Claim | None, wanted: CheckpointIndex, written: Written) -> CheckpointIndex:
    if owner is None:
        raise OwnerOnly(
            f"{store.uri}: is written without conditional writes, so that only the run that owns it may change its index"
        )
    attempt_index.write(store, wanted, written)
    # Believed only if no newer attempt had announced itself until now: what it reads from here on has this change.
    _refuse_older(store, owner, attempt_index.look(store))
    return wanted


def await_claim(store: Store, attempt: int) -> Claim:
    """Returns node 0's claim, once the index carries it.

    Raises:
        Fenced: A newer attempt owns the output.
        WaitedTooLong: Node 0 has not claimed the output in time.
    """
    deadline = Deadline(CLAIM_WAIT_SECONDS, f"node 0 of attempt {attempt} to claim {store.uri}; look at its log")
    while True:
        held = read(store)
        _refuse_other_layout(store, held)
        if held is not None and held.index.attempt == attempt:
            return Claim(attempt, held.index.nonce, held.index.run)
        if held is not None and held.index.attempt > attempt:
            raise fenced(held.index, attempt, store)
        deadline.pause()
