"""One file to or from object storage: digests checked on the way, bounded memory, and never half a file under its name."""

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from adapter_agent import content, local
from adapter_agent.errors import Damaged, EndpointUnreachable, disk_error
from adapter_agent.store import Store, checksum

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

SINGLE_PUT_BYTES = 64 * 2**20
"""Larger files go up in parts."""
MIN_PART_BYTES = 32 * 2**20
MAX_PARTS = 9000
"""AWS takes 10,000."""
DOWNLOADS = 4
"""Tries of one download."""
_CHUNK = 2**20

OnBytes = Callable[[int], None]
"""Told how many bytes have just gone over the wire."""


def ignore_bytes(_count: int) -> None:
    """For callers that show no progress."""


@dataclass(frozen=True)
class Condition:
    """What must be in the key's place for a write to happen: nothing, or the object with this ETag."""

    etag: str | None = None


def send(
    store: Store, key: str, path: Path, facts: local.FileFacts, metadata: Mapping[str, str],
    condition: Condition, on_bytes: OnBytes = ignore_bytes,
) -> None:  # fmt: skip
    """Uploads a file; the store checks its SHA-256.

    Raises:
        PreconditionFailed: another object is in its place, which may be this one after a lost reply.
        Damaged: the bytes that arrived are not those that `facts` describes; the file has changed meanwhile.
    """
    if facts.size > SINGLE_PUT_BYTES:
        _send_parts(store, key, path, facts, metadata, condition, on_bytes)
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


def _send_parts(
    store: Store, key: str, path: Path, facts: local.FileFacts, metadata: Mapping[str, str],
    condition: Condition, on_bytes: OnBytes,
) -> None:  # fmt: skip
    client, bucket, full_key = store.client, store.bucket, store.full_key(key)
    part_bytes = max(MIN_PART_BYTES, -(-facts.size // MAX_PARTS))
    with store.naming(key):
        upload = client.create_multipart_upload(
            Bucket=bucket, Key=full_key, ChecksumAlgorithm="SHA256", Metadata=metadata
        )["UploadId"]
    parts: list[CompletedPartTypeDef] = []
    whole = hashlib.sha256()
    try:
        with path.open("rb") as stream, store.naming(key):
            while part := stream.read(part_bytes):
                whole.update(part)
                number, digest = len(parts) + 1, checksum(part)
                etag = client.upload_part(
                    Bucket=bucket, Key=full_key, UploadId=upload, PartNumber=number, Body=part, ChecksumSHA256=digest
                )["ETag"]
                parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": digest})
                on_bytes(len(part))
            _refuse_change(path, facts, whole.hexdigest())
            client.complete_multipart_upload(
                Bucket=bucket, Key=full_key, UploadId=upload, MultipartUpload={"Parts": parts},
                **_conditions(condition),  # type: ignore[arg-type]
            )  # fmt: skip
    except BaseException:
        # The first error counts; what stays is ended by the next attempt's sweep.
        with contextlib.suppress(BotoCoreError, ClientError):
            client.abort_multipart_upload(Bucket=bucket, Key=full_key, UploadId=upload)
        raise


def _refuse_change(path: Path, facts: local.FileFacts, sent: str) -> None:
    """The store knows only the parts' digests, so the whole is compared here."""
    if sent != facts.sha256:
        raise Damaged(f"{path}: changed while it was uploaded")


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
