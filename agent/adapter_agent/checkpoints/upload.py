"""Uploads a node's part of one checkpoint: creates every object once, then the receipt that says that all are there."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from adapter_agent import local_files, parallel
from adapter_agent.checkpoints import index, marks, seals
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import ContentConflict, Damaged, ObjectMissing, PreconditionFailed
from adapter_agent.storage import content, multipart
from adapter_agent.storage.multipart import OnBytes, Origin, ignore_bytes
from adapter_agent.storage.open_uploads import Recorder
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_agent.storage.transfer import NOTHING_KNOWN, Condition, send
from adapter_api.checkpoint import MANIFEST_NAME, FileEntry, Receipt, receipt_name

PARALLEL_FILES = 4

log = logging.getLogger(__name__)


def create_once(
    store: Store, claim: Claim, key: str, path: Path, facts: local_files.FileFacts, on_bytes: OnBytes = ignore_bytes,
    origin: Origin = NOTHING_KNOWN,
) -> None:  # fmt: skip
    """Creates an object of an uncommitted checkpoint from a file.

    An equal object in its place is as good. A different one that this or an older attempt left behind, which nothing
    can have committed, is replaced under If-Match, so that a newer attempt's object is never touched.

    Raises:
        Fenced: a newer attempt owns the output.
        ContentConflict: the object in its place is not known to be a leftover.
    """
    metadata = marks.metadata(claim, facts.sha256)
    try:
        send(store, key, path, facts, metadata, Condition(), on_bytes, origin)
    except PreconditionFailed:
        found = store.head(key)
        if found is None:
            raise  # deleted just now; the next try creates it
        if (found.size, marks.digest_in(found)) == (facts.size, facts.sha256):
            return
        _refuse_foreign(store, claim, found)
        log.warning("%s: replacing what an earlier, uncommitted upload left there", store.uri_of(key))
        send(store, key, path, facts, metadata, Condition(found.etag), on_bytes, origin)


def create_document(store: Store, claim: Claim, key: str, body: bytes) -> None:
    """Creates an object from content in memory, such as a receipt or a manifest, by the same rules."""
    facts = local_files.facts_of_bytes(body)
    try:
        store.put_if_absent(key, body, marks.metadata(claim, facts.sha256))
    except PreconditionFailed:
        found = store.head(key)
        if found is None:
            raise
        if marks.digest_in(found) == facts.sha256:
            return
        _refuse_foreign(store, claim, found)
        store.replace_if_match(key, body, found.etag, marks.metadata(claim, facts.sha256))


def _refuse_foreign(store: Store, claim: Claim, found: ObjectFacts) -> None:
    index.read_owned(store, claim)
    # What an older build wrote carries no run; no index, and a checkpoint there, would have been refused.
    writer = marks.possible_attempt_in(found, claim.run)
    if writer is None or writer > claim.attempt:
        raise ContentConflict(
            f"{store.uri_of(found.key)}: another object is there, and this run did not write it; "
            "move it away, or choose another output address"
        )


def read_receipt(store: Store, claim: Claim, step: int, node: int) -> Receipt | None:
    """Returns the receipt of a node for a step; None if there is none yet."""
    key = f"{index.folder(store, claim, step)}/{receipt_name(node)}"
    try:
        body, _ = store.get(key)
    except ObjectMissing:
        return None
    try:
        return Receipt.model_validate_json(body)
    except ValidationError:
        raise Damaged(f"{store.uri_of(key)}: is not a receipt") from None


def upload_checkpoint(
    store: Store, claim: Claim, node: int, step: int, folder: Path, on_bytes: OnBytes = ignore_bytes,
    journals: Path | None = None, known: Mapping[str, str] = MappingProxyType({}),
) -> Receipt:  # fmt: skip
    """Uploads everything in `folder`, then the receipt. Doing it again after any interruption is safe.

    Args:
        store: The output.
        claim: The attempt that uploads.
        node: Whose part of the checkpoint it is.
        step: Of the checkpoint.
        folder: What its trainer has written.
        on_bytes: Told of what went over the wire.
        journals: Folder that remembers large files' uploads, so that a process after this one goes on with them.
        known: SHA-256 -> key of committed content, which is copied in the store instead of sent again.

    Raises:
        Damaged: the folder holds a file of a kind that restore would refuse.
        ContentConflict: another pass has replaced the folder meanwhile.
    """
    pass_id = seals.pass_of(folder)
    receipt = read_receipt(store, claim, step, node)
    if receipt is not None and (receipt.attempt, receipt.pass_id) == (claim.attempt, pass_id):
        return receipt
    paths = [path for path in local_files.files_below(folder) if path != MANIFEST_NAME]
    for path in paths:
        _refuse_unrestorable(folder, path)

    def upload(path: str) -> FileEntry:
        facts = multipart.facts_of(folder / path)
        key = f"{index.folder(store, claim, step)}/{path}"
        journal = None if journals is None else journals / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        create_once(
            store, claim, key, folder / path, facts, on_bytes, Origin(journal, known, Recorder(store, claim.attempt))
        )
        return FileEntry(path=path, size=facts.size, sha256=facts.sha256, node=node)

    files = tuple(parallel.each(upload, paths, PARALLEL_FILES))
    # Each pass saves a step once and gives the folder its name when it is whole: of one pass before and after, of one throughout.
    if seals.pass_of(folder) != pass_id:
        raise ContentConflict(f"{folder}: was saved again by a later pass while it was uploaded; it is uploaded again")
    receipt = Receipt(step=step, attempt=claim.attempt, node=node, pass_id=pass_id, files=files)
    create_document(
        store,
        claim,
        f"{index.folder(store, claim, step)}/{receipt_name(node)}",
        receipt.model_dump_json(indent=2).encode(),
    )
    return receipt


def _refuse_unrestorable(folder: Path, path: str) -> None:
    content.refuse_name(path)
    with (folder / path).open("rb") as stream:
        content.refuse_content(path, stream.read(content.HEAD_BYTES))
