"""One file to or from object storage: digests checked on the way, bounded memory, and never half a file under its name."""

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from urllib3.exceptions import HTTPError

from adapter_agent import content, local, multipart
from adapter_agent.errors import Damaged, EndpointUnreachable, disk_error
from adapter_agent.multipart import OnBytes, Origin, ignore_bytes
from adapter_agent.store import Store

NOTHING_KNOWN = Origin()
DOWNLOADS = 4
"""Tries of one download."""
_CHUNK = 2**20


@dataclass(frozen=True)
class Condition:
    """What must be in the key's place for a write to happen: nothing, or the object with this ETag."""

    etag: str | None = None


def send(
    store: Store, key: str, path: Path, facts: local.FileFacts, metadata: Mapping[str, str],
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
    with path.open("rb") as stream, store.naming(key):
        store.client.put_object(
            Bucket=store.bucket, Key=store.full_key(key), Body=stream, ContentLength=facts.size,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(facts.sha256)).decode(), Metadata=metadata,
            **_conditions(condition),  # type: ignore[arg-type]
        )  # fmt: skip
    on_bytes(facts.size)


def _conditions(condition: Condition) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if condition.etag is None else {"IfMatch": condition.etag}


def receive(
    store: Store, key: str, target: Path, size: int, sha256: str | None, *,
    only_safe: bool, on_bytes: OnBytes = ignore_bytes,
) -> None:  # fmt: skip
    """Downloads an object to `target`, complete or absent; its size, its digest (if known) and its kind are checked.

    Raises:
        Damaged: what storage holds is not what was expected, also on a second look; or it is of a refused kind.
        StorageFull: the local disk is full.
    """
    mismatches = 0
    for last in (*[False] * (DOWNLOADS - 1), True):
        try:
            _receive_once(store, key, target, size, sha256, only_safe=only_safe, on_bytes=on_bytes)
        except Damaged:
            mismatches += 1
            if mismatches == 2 or last:
                raise
        except EndpointUnreachable:
            if last:
                raise
        except OSError as error:
            raise disk_error(error, f"downloading {store.uri_of(key)}") from error
        else:
            return


def _receive_once(
    store: Store, key: str, target: Path, size: int, sha256: str | None, *, only_safe: bool, on_bytes: OnBytes
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    place = store.uri_of(key)
    try:
        with store.naming(key):
            stream = store.client.get_object(Bucket=store.bucket, Key=store.full_key(key))["Body"]
            digest, received = hashlib.sha256(), 0
            with stream, partial.open("wb") as file:
                while chunk := stream.read(_CHUNK):
                    if only_safe and received == 0:
                        content.refuse_content(key, chunk[: content.HEAD_BYTES])
                    received += len(chunk)
                    if received > size:
                        raise Damaged(f"{place}: is larger than the {size} bytes that it should have")
                    digest.update(chunk)
                    file.write(chunk)
                    on_bytes(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        if received != size:
            raise Damaged(f"{place}: has {received} bytes where {size} are expected")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise Damaged(f"{place}: its content is damaged: SHA-256 {digest.hexdigest()}, expected {sha256}")
        partial.replace(target)
    except HTTPError as error:
        raise EndpointUnreachable(f"{place} at {store.endpoint}: the download broke off ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
