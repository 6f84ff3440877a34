"""Deletes a checkpoint's objects, and only those that are provably this run's. Others that lie beside them stay."""

import hashlib
import logging
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from adapter_agent import parallel
from adapter_agent.checkpoints import marks
from adapter_agent.errors import Damaged, ObjectMissing
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_api.checkpoint import MANIFEST_NAME, CheckpointManifest, Removal, receipt_name

PARALLEL_LOOKS = 8

log = logging.getLogger(__name__)

_Judge = Callable[[ObjectFacts], bool]


def remove_committed(store: Store, removal: Removal, run: str) -> int:
    """Deletes a checkpoint that was committed and has left the index; returns how many objects that were. May be repeated.

    Its own are those that the manifest of the commit names, in their sizes; and those that it does not name with a mark, also one of
    an older build: the index has said that the folder is this run's. What it names and has another size was replaced by
    somebody, whatever its mark says: versitygw 1.8.0 keeps the metadata of the object that was there before.
    """
    there = list(store.list(f"{removal.folder}/"))
    described = _described(store, removal)
    certain = {facts.key for facts in there if _is_described(facts, removal.folder, described)}
    others = [facts for facts in there if facts.key.removeprefix(f"{removal.folder}/") not in described]
    marked = _marked(store, others, lambda found: marks.possible_attempt_in(found, run) is not None)
    return _delete(store, removal.folder, [*certain, *marked], len(there))


def remove_leftovers(store: Store, folder: str, run: str, before: int) -> int:
    """Deletes what attempts of this run before `before` left in a folder that was never committed; returns how many."""
    there = list(store.list(f"{folder}/"))

    def is_left_over(found: ObjectFacts) -> bool:
        attempt = marks.attempt_in(found, run)
        return attempt is not None and attempt < before

    return _delete(store, folder, _marked(store, there, is_left_over), len(there))


def _described(store: Store, removal: Removal) -> dict[str, int | None]:
    """Path -> size of what was committed; the sizes of receipts are not told. Empty once the manifest has gone."""
    try:
        body, _ = store.get(f"{removal.folder}/{MANIFEST_NAME}")
        if hashlib.sha256(body).hexdigest() != removal.manifest_sha256:
            return {}
        manifest = CheckpointManifest.model_validate_json(body)
    except (ObjectMissing, Damaged, ValidationError):
        return {}
    receipts: dict[str, int | None] = dict.fromkeys(map(receipt_name, range(manifest.nodes)))
    return {MANIFEST_NAME: len(body), **receipts, **{file.path: file.size for file in manifest.files}}


def _is_described(facts: ObjectFacts, folder: str, described: dict[str, int | None]) -> bool:
    path = facts.key.removeprefix(f"{folder}/")
    return path in described and described[path] in (None, facts.size)


def _marked(store: Store, there: Iterable[ObjectFacts], judge: _Judge) -> list[str]:
    """Keys of the objects whose mark is as `judge` wants it; listings do not tell, so each is asked for."""
    found = parallel.each(lambda facts: store.head(facts.key), there, PARALLEL_LOOKS)
    return [facts.key for facts in found if facts is not None and judge(facts)]


def _delete(store: Store, folder: str, keys: list[str], there: int) -> int:
    """The manifest before the data that it describes."""
    manifest = f"{folder}/{MANIFEST_NAME}"
    if manifest in keys:
        store.delete(manifest)
    store.delete(*(key for key in keys if key != manifest))
    if len(keys) < there:
        log.info(
            "%s: %d objects stay, which this run has not marked as its own", store.uri_of(folder), there - len(keys)
        )
    return len(keys)
