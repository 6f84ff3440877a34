"""One file to object storage, its digest checked on the way: whole where it is small, in parts where it is large."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google_crc32c import extend

from adapter_agent import local_files
from adapter_agent.storage import multipart
from adapter_agent.storage.file_body import FileBody
from adapter_agent.storage.multipart import OnBytes, Origin, ignore_bytes
from adapter_agent.storage.store import Store

NOTHING_KNOWN = Origin()
MAX_REPLACED_BYTES = 2**30
"""Of a file that is sent whole each time it has grown; a single request may carry 5 GiB."""
_BLOCK_BYTES = 256 * 2**10


@dataclass(frozen=True)
class Condition:
    """What must be in the key's place for a write to happen: nothing, or the object with this ETag."""

    etag: str | None = None


def send(
    store: Store, key: str, path: Path, facts: local_files.FileFacts, metadata: Mapping[str, str],
    condition: Condition, on_bytes: OnBytes = ignore_bytes, origin: Origin = NOTHING_KNOWN,
) -> None:  # fmt: skip
    """Uploads a file; the store checks its SHA-256.

    Raises:
        PreconditionFailed: another object is in its place, which may be this one after a lost reply.
        Damaged: the bytes that arrived are not those that `facts` describes; the file has changed meanwhile.
    """
    if multipart.is_large(facts, origin):
        multipart.send(store, key, path, facts, metadata, _conditions(condition), on_bytes, origin)
        return
    with FileBody(path, 0, facts.size) as body, store.naming(key):
        answer = store.data_client.put_object(
            Bucket=store.bucket, Key=store.full_key(key), Body=body, ContentLength=facts.size,  # type: ignore[arg-type]
            ChecksumSHA256=base64.b64encode(bytes.fromhex(facts.sha256)).decode(), Metadata=metadata,
            **_conditions(condition),  # type: ignore[arg-type]
        )  # fmt: skip
    store.etag(answer, key)
    on_bytes(facts.size)


def replace_whatever(store: Store, key: str, path: Path) -> int:
    """Uploads what a growing file holds now, with one request and whatever is in its place; returns how many bytes that were.

    Of one that has outgrown a request, the end.
    """
    size = path.stat().st_size
    first = max(0, size - MAX_REPLACED_BYTES)
    with FileBody(path, first, size - first) as body, store.naming(key):
        crc32c = 0
        while chunk := body.read(_BLOCK_BYTES):
            crc32c = extend(crc32c, chunk)
        body.seek(0)
        answer = store.data_client.put_object(
            Bucket=store.bucket, Key=store.full_key(key), Body=body, ContentLength=body.size,  # type: ignore[arg-type]
            ChecksumCRC32C=base64.b64encode(crc32c.to_bytes(4, "big")).decode(),
        )  # fmt: skip
    store.etag(answer, key)
    return body.size


def _conditions(condition: Condition) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if condition.etag is None else {"IfMatch": condition.etag}
