"""A checkpoint's folder that stands alone in storage: copied or exported there, with or without its manifest."""

import hashlib
from datetime import UTC, datetime

from pydantic import ValidationError

from adapter_agent import parallel
from adapter_agent.errors import Damaged, NothingThere, ObjectMissing
from adapter_agent.storage import content
from adapter_agent.storage.reading import chunks
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_api.checkpoint import MANIFEST_NAME, CheckpointManifest, FileEntry
from adapter_api.layout import STATE_FILE

"""The trainer's: {"step": …}."""
PARALLEL_FILES = 4


def read(store: Store) -> CheckpointManifest:
    """What the folder at the store's own address holds. Without a manifest every file is read, to know its digest.

    Raises:
        NothingThere: the address holds no checkpoint.
        Damaged: its manifest or its state is none, or it holds files that are never accepted.
    """
    try:
        body, _ = store.get(MANIFEST_NAME)
    except ObjectMissing:
        return _described(store)
    try:
        manifest = CheckpointManifest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise Damaged(f"{store.uri_of(MANIFEST_NAME)}: {where}: {fault['msg']}; delete it, or correct it") from None
    for file in manifest.files:
        content.refuse_name(file.path)
    return manifest


def _described(store: Store) -> CheckpointManifest:
    try:
        body, _ = store.get(STATE_FILE)
    except ObjectMissing:
        raise NothingThere(
            f"{store.uri} holds no checkpoint to resume from: neither a run's checkpoints.json, nor a checkpoint's "
            f"{MANIFEST_NAME} or {STATE_FILE}; correct spec.resumeFrom"
        ) from None
    step = content.read_json_object(body, store.uri_of(STATE_FILE)).get("step")
    if not isinstance(step, int) or step < 0:
        raise Damaged(f"{store.uri_of(STATE_FILE)}: says no step")
    objects = [facts for facts in store.list() if not facts.is_marker and not facts.key.startswith("nodes/")]
    for facts in objects:
        content.refuse_name(facts.key)
    try:
        return CheckpointManifest(
            step=step, attempt=0, nodes=1, world_size=1, created_at=datetime.fromtimestamp(0, UTC),
            files=tuple(parallel.each(lambda facts: _entry(store, facts), objects, PARALLEL_FILES)),
        )  # fmt: skip
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise Damaged(f"{store.uri}: {fault['msg'].removeprefix('Value error, ')}; rename the object") from None


def _entry(store: Store, facts: ObjectFacts) -> FileEntry:
    digest = hashlib.sha256()
    for chunk in chunks(store, facts.key):
        digest.update(chunk)
    return FileEntry(path=facts.key, size=facts.size, sha256=digest.hexdigest(), node=0)
