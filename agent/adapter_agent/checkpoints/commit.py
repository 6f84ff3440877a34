"""Commits one checkpoint: all receipts, then the manifest, then the index. The last write is the commit."""

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from adapter_agent.checkpoints import index, seals
from adapter_agent.checkpoints.index import Claim
from adapter_agent.checkpoints.upload import create_document, read_receipt
from adapter_agent.errors import ContentConflict, Damaged, ObjectMissing
from adapter_agent.storage import content
from adapter_agent.storage.store import Store
from adapter_api import document
from adapter_api.checkpoint import (
    MANIFEST_NAME,
    CheckpointIndex,
    CheckpointManifest,
    FileEntry,
    IndexEntry,
    Receipt,
)
from adapter_api.layout import METRICS_FILE, TRAINING_FILE, VERSIONS_FILE
from adapter_api.training import TrainingConfig

_FACTS = {"metrics": METRICS_FILE, "versions": VERSIONS_FILE}
"""Field of the manifest -> file in the folder of rank 0's node whose content it holds."""


def receipts_of(store: Store, claim: Claim, step: int, nodes: int) -> list[Receipt] | None:
    """Returns the receipts of all nodes for a step in this attempt, all of one pass; None while one is missing."""
    receipts = []
    for node in range(nodes):
        receipt = read_receipt(store, claim, step, node)
        if receipt is None or receipt.attempt != claim.attempt:
            return None
        receipts.append(receipt)
    # A node whose receipt is of an earlier pass sends another one: that pass never got to this step on every node.
    return receipts if len({receipt.pass_id for receipt in receipts}) == 1 else None


def commit(
    store: Store, claim: Claim, receipts: list[Receipt], folder: Path, world_size: int, now: datetime
) -> IndexEntry:
    """Publishes the checkpoint that the receipts describe; `folder` is node 0's copy of it. It may be repeated.

    Raises:
        Fenced: A newer attempt owns the output; nothing was committed.
        Damaged: The receipts contradict each other, or the trainer's JSON files are not what they should be.
        ContentConflict: `folder` is of another pass than the receipts.
    """
    step, pass_id = receipts[0].step, receipts[0].pass_id
    if seals.pass_of(folder) != pass_id:
        raise ContentConflict(
            f"{folder}: was saved again by a later pass; it is committed after it has been uploaded again"
        )
    key = f"{index.folder(store, claim, step)}/{MANIFEST_NAME}"
    manifest, body = _existing_manifest(store, claim, key, pass_id) or (None, b"")
    if manifest is None:
        manifest = build_manifest(receipts, folder, world_size, now, claim.run)
        body = manifest.model_dump_json(indent=2, exclude_none=True).encode()
        create_document(store, claim, key, body)
    entry = IndexEntry(
        step=step, attempt=claim.attempt, manifest_sha256=hashlib.sha256(body).hexdigest(), committed_at=now,
        bytes=manifest.bytes, metrics=manifest.metrics, scoped=not store.conditional,
    )  # fmt: skip

    def with_entry(current: CheckpointIndex) -> CheckpointIndex:
        if entry.manifest_sha256 in {damaged.manifest_sha256 for damaged in current.quarantined}:
            raise ContentConflict(
                f"{store.uri_of(entry.folder)}: this checkpoint was found damaged before and is quarantined; delete "
                "the folder, so that it is uploaded again"
            )
        removal = next((removal for removal in current.removals if removal.step == step), None)
        present = current.entry(step) or removal
        # A commit whose reply was lost may have been removed by someone since.
        if present is not None and present.manifest_sha256 == entry.manifest_sha256:
            return current
        entries = sorted([*(e for e in current.checkpoints if e.step != step), entry], key=lambda e: e.step)
        removals = tuple(each for each in current.removals if each.step != step)
        return current.model_copy(update={"checkpoints": tuple(entries), "removals": removals})

    return index.change(store, claim, with_entry).entry(step) or entry


def _existing_manifest(store: Store, claim: Claim, key: str, pass_id: str) -> tuple[CheckpointManifest, bytes] | None:
    """Returns the manifest that this attempt wrote before an interruption. Those of other attempts and passes do not count."""
    try:
        body, _ = store.get(key)
        manifest = CheckpointManifest.model_validate_json(body)
    except (ObjectMissing, ValidationError):
        return None
    return (manifest, body) if (manifest.attempt, manifest.pass_id) == (claim.attempt, pass_id) else None


def build_manifest(
    receipts: list[Receipt], folder: Path, world_size: int, now: datetime, run: str = ""
) -> CheckpointManifest:
    """Returns every file of every receipt, sorted by path, with what rank 0 wrote about the checkpoint.

    Raises:
        Damaged: Two receipts name one file, or are of different passes; or rank 0's JSON files are not what they should be.
    """
    if len({receipt.pass_id for receipt in receipts}) > 1:
        raise Damaged(f"checkpoint {receipts[0].step}: the nodes' receipts are of different passes")
    files: dict[str, FileEntry] = {}
    for entry in (entry for receipt in receipts for entry in receipt.files):
        if entry.path in files:
            raise Damaged(f"{entry.path}: nodes {files[entry.path].node} and {entry.node} both wrote this file")
        files[entry.path] = entry
    facts = {field: _read_facts(folder / name) for field, name in _FACTS.items()}
    try:
        return CheckpointManifest.model_validate(
            {
                "step": receipts[0].step,
                "attempt": receipts[0].attempt,
                "run": run,
                "pass_id": receipts[0].pass_id,
                "nodes": len(receipts),
                "world_size": world_size,
                "created_at": now,
                "files": tuple(files[path] for path in sorted(files)),
                "training": _read_training(folder),
                **facts,
            }
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Damaged(f"{folder}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def _read_facts(path: Path) -> dict[str, object]:
    return content.read_json_object(path.read_bytes(), str(path)) if path.is_file() else {}


def _read_training(folder: Path) -> TrainingConfig | None:
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    try:
        return document.validate(TrainingConfig, document.read(path))
    except document.InvalidDocument as error:
        raise Damaged(f"the trainer's configuration in {folder} is not valid: {error}") from None
