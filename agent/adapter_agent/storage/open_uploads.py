"""Multipart uploads that a run has begun, each with a record in storage, so that a later attempt can end them.

    <output uri>/attempts/<attempt>/uploads/<n>.json

A store tells of an upload that was never completed neither whose it is nor what is in it, and some list none. With records
nobody's uploads are ended but one's own. The record is written before the first part: without one there is nothing to pay.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from adapter_agent.errors import ObjectMissing, StorageError
from adapter_agent.storage.store import Store
from adapter_api.base import ResourceModel
from adapter_api.checkpoint import ATTEMPTS

log = logging.getLogger(__name__)


class OpenUpload(ResourceModel):
    """What a record holds."""

    schema_version: Literal[1] = 1
    key: str
    """Of the object that it becomes."""
    upload_id: str


@dataclass(frozen=True)
class Recorder:
    """Keeps the records of one attempt."""

    store: Store
    attempt: int

    def begun(self, key: str, upload_id: str) -> None:
        """An upload has been begun, and has no part yet."""
        body = OpenUpload(key=key, upload_id=upload_id).model_dump_json(indent=2).encode()
        self.store.put(_record(self.attempt, upload_id), body)

    def ended(self, upload_id: str) -> None:
        """It has been completed, or ended. A record that stays does no harm: what it names is no more."""
        try:
            self.store.delete(_record(self.attempt, upload_id))
        except StorageError as error:
            log.info("the record of an upload stays for the next attempt: %s", error)


def end_recorded(store: Store, attempt: int, below: str = "") -> None:
    """Ends the uploads that an attempt has recorded for keys that start with `below`, and drops their records.

    Whoever was stopped in the middle of one may have gone on, and completed or ended it meanwhile.
    """
    for facts in list(store.list(f"{ATTEMPTS}{attempt}/uploads/")):
        try:
            upload = OpenUpload.model_validate_json(store.get(facts.key)[0])
        except (ObjectMissing, ValidationError):
            continue
        if upload.key.startswith(below):
            store.abort_upload(upload.key, upload.upload_id)
            store.delete(facts.key)


def _record(attempt: int, upload_id: str) -> str:
    return f"{ATTEMPTS}{attempt}/uploads/{hashlib.sha256(upload_id.encode()).hexdigest()[:16]}.json"
