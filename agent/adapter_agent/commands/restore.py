"""The `restore` command: claims the output, restores the checkpoint that the attempt starts from, and stages files."""

import logging
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from adapter_agent import local_files
from adapter_agent.checkpoints import claims, exported, fetch, index, probe, quarantine, retention, unexplained
from adapter_agent.checkpoints.claims import Source, Start
from adapter_agent.checkpoints.fetch import Restored, Verified
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import (
    REFUSALS,
    Damaged,
    NothingThere,
    StorageRefused,
    disk_error,
)
from adapter_agent.options import RestoreOptions
from adapter_agent.staging import encodings, models, staged_files
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import CheckpointIndex, CheckpointManifest
from adapter_api.launch import attempt_number

log = logging.getLogger(__name__)


def prepare(options: RestoreOptions) -> None:
    """Runs to its end before training starts.

    Raises:
        StorageError: Training cannot start; the message says why.
    """
    try:
        for folder in (options.folders.output, options.folders.agent):
            folder.mkdir(parents=True, exist_ok=True)
        output = options.output.connect()
        output.check()
        begun = _lead(options, output) if options.node == 0 else _follow(options, output)
        claims.keep(options.folders, begun)
        _remove_others(options.folders, begun.source)
    except OSError as error:
        raise disk_error(error, f"preparing {options.folders.work}") from error
    except REFUSALS as error:
        if attempt_number(options.attempt) == 1:
            raise
        raise StorageRefused(
            f"{error}; an earlier attempt was not refused: this run continues when that is fixed"
        ) from error


def _lead(options: RestoreOptions, output: Store) -> Start:
    """On node 0: claims the output, decides where to start, and announces that to the other nodes."""
    before = claims.kept(options.folders)
    again = before is not None and before.attempt == options.attempt
    claim = before.claim if before is not None and again else Claim(options.attempt, uuid.uuid4().hex)
    if index.read(output) is None:
        unexplained.refuse(output, options.attempt)  # before the probe writes anything
    found = probe.probe(output, options.attempt)
    if found.checksums_ignored:
        output.compare_etags()
    # Kept first: a process that dies between claim and reply must recognise its own claim when it is run again.
    claims.keep(options.folders, Start(attempt=claim.attempt, nonce=claim.nonce))
    current = index.claim(output, claim)
    claim = replace(claim, run=current.run)
    log.info("attempt %d owns %s", claim.attempt, output.uri)
    begun = _restore_own(options, output, claim, current) or _restore_foreign(options, claim)
    begun = begun.model_copy(update={"checksums_ignored": found.checksums_ignored})
    if not again:
        # Run again, another node's upload of this attempt may be under way, which must not be taken for a leftover.
        retention.sweep(
            output, claim, datetime.now(UTC), lambda step, folder: _is_resumed(options, output, step, folder)
        )
    claims.announce(output, begun)
    _stage(options)
    return begun


def _is_resumed(options: RestoreOptions, output: Store, step: int, folder: str) -> bool:
    """Whether a folder of the output is the one that the job resumes from, or contains it."""
    if options.resume is None:
        return False
    resumed, address = options.resume.uri.rstrip("/"), output.uri_of(folder)
    return f"{resumed}/".startswith(f"{address}/") or (resumed == output.uri and step == options.resume_step)


def _restore_own(options: RestoreOptions, output: Store, claim: Claim, current: CheckpointIndex) -> Start | None:
    restored = fetch.fetch_newest_usable(output, current, options.folders.checkpoint)
    if restored is None:
        return None
    if restored.unusable:
        # Otherwise training could never commit these steps again.
        quarantine.quarantine(output, claim, restored.unusable, datetime.now(UTC))
    return _start(claim, output, restored)


def _start(claim: Claim, store: Store, restored: Restored) -> Start:
    log.info("continuing from checkpoint %d of %s", restored.entry.step, store.uri)
    source = Source(uri=store.uri, step=restored.entry.step, manifest_sha256=restored.entry.manifest_sha256)
    reasons = "; ".join(f"checkpoint {each.entry.step} cannot be used: {each.reason}" for each in restored.unusable)
    warning = f"started from checkpoint {restored.entry.step} instead: {reasons}" if reasons else None
    return Start(attempt=claim.attempt, nonce=claim.nonce, run=claim.run, source=source, warning=warning)


def _restore_foreign(options: RestoreOptions, claim: Claim) -> Start:
    """Restores the checkpoint of another run that the job names; without one, the attempt starts from the beginning."""
    if options.resume is None:
        return Start(attempt=claim.attempt, nonce=claim.nonce, run=claim.run)
    other = options.resume.connect()
    held = index.read(other)
    if held is None:
        return _restore_exported(options, other, claim)
    if held.index.newest is None:
        raise NothingThere(f"{other.uri} holds no committed checkpoint to resume from; correct spec.resumeFrom")
    chosen = held.index
    if options.resume_step is not None:
        entry = fetch.committed_entry(other, options.resume_step)
        chosen = chosen.model_copy(update={"checkpoints": (entry,)})
    restored = fetch.fetch_newest_usable(other, chosen, options.folders.checkpoint)
    assert restored is not None  # noqa: S101 - there is a checkpoint
    return _start(claim, other, restored)


def _restore_exported(options: RestoreOptions, other: Store, claim: Claim) -> Start:
    manifest = exported.read(other)
    if options.resume_step not in (None, manifest.step):
        raise NothingThere(
            f"{other.uri} holds checkpoint {manifest.step}, not {options.resume_step}; correct spec.resumeFrom"
        )
    body = _fetch_exported(options, other, manifest)
    log.info("starting from checkpoint %d in %s", manifest.step, other.uri)
    source = Source(uri=other.uri, step=manifest.step, manifest_sha256=local_files.facts_of_bytes(body).sha256)
    return Start(attempt=claim.attempt, nonce=claim.nonce, run=claim.run, source=source, exported=manifest)


def _fetch_exported(options: RestoreOptions, other: Store, manifest: CheckpointManifest) -> bytes:
    """Downloads that checkpoint like any other. Returns the manifest as it was written."""
    body = manifest.model_dump_json(indent=2, exclude_none=True).encode()
    fetch.fetch(other, Verified(manifest, body, ""), options.folders.checkpoint(manifest.step))
    return body


def _follow(options: RestoreOptions, output: Store) -> Start:
    """On every other node: stages data while node 0 restores, then restores the same checkpoint."""
    claim = index.await_claim(output, options.attempt)
    _stage(options)
    begun = claims.await_start(output, claim)
    if begun.source is not None:
        theirs = options.resume.connect() if options.resume and begun.source.uri == options.resume.uri else output
        if begun.exported is not None:
            _fetch_exported(options, theirs, begun.exported)
            return begun
        entry = fetch.committed_entry(theirs, begun.source.step)
        if entry.manifest_sha256 != begun.source.manifest_sha256:
            raise Damaged(f"{theirs.uri}: checkpoint {entry.step} is not the one that node 0 has restored")
        fetch.fetch(theirs, fetch.read_manifest(theirs, entry), options.folders.checkpoint(entry.step))
    return begun


def _stage(options: RestoreOptions) -> None:
    if options.data is not None and options.data_dir is not None:
        options.data_dir.mkdir(parents=True, exist_ok=True)
        staged_files.stage_folder(options.data.connect(), options.data_dir)
    if options.cache is not None:
        encodings.stage(options.cache.connect(), options.folders.cache, options.folders.agent)
    models.stage(options.models, options.folders.models, lambda uri: options.model_location(uri).connect())


def _remove_others(folders: local_files.Folders, source: Source | None) -> None:
    """Removes local checkpoints that were never committed: training continues only from the restored one."""
    kept = None if source is None else source.step
    others: list[Path] = [
        folders.checkpoint(step) for step in local_files.complete_steps(folders.output) if step != kept
    ]
    for folder in others:
        log.info("removing %s, which is not the checkpoint that this attempt starts from", folder)
    local_files.remove_folders(others)
    for remains in folders.output.glob(".checkpoint-*.partial"):
        shutil.rmtree(remains, ignore_errors=True)
