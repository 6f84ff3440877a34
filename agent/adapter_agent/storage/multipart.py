"""A large file in parts, each of which goes over the wire once: a killed upload goes on, known content is copied."""

import base64
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google_crc32c import extend as crc32c
from pydantic import ValidationError

from adapter_agent import local_files, parallel
from adapter_agent.errors import (
    CredentialsRefused,
    Damaged,
    EndpointUnreachable,
    NotAStore,
    ObjectMissing,
    PreconditionFailed,
    StorageError,
    Unsupported,
)
from adapter_agent.storage.file_body import FileBody
from adapter_agent.storage.open_uploads import Recorder
from adapter_agent.storage.store import Store
from adapter_api.base import Count, PositiveCount, ResourceModel

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

SINGLE_PUT_BYTES = 64 * 2**20
"""Larger files go up in parts."""
COPY_BYTES = 2**20
"""Of files from this size on, content that the store has already is copied there instead of sent again."""
MIN_PART_BYTES = 32 * 2**20
MAX_PARTS = 9000
"""AWS takes 10,000."""
PARALLEL_PARTS = 4
"""In flight, of all files together."""
_CHUNK = 256 * 2**10
"""Read at once: stays in the processor's cache, and the next block takes the same memory."""

_MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"
_in_flight = threading.BoundedSemaphore(PARALLEL_PARTS)
log = logging.getLogger(__name__)

OnBytes = Callable[[int], None]
"""Told how many bytes have just gone over the wire."""


def ignore_bytes(_count: int) -> None:
    """For callers that show no progress."""


@dataclass(frozen=True)
class Origin:
    """What makes an upload cheaper than sending everything."""

    journal: Path | None = None
    """File that remembers the upload for a process that comes after this one."""
    known: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of committed content -> its key."""
    recorder: Recorder | None = None
    """Keeps records of uploads in storage, for whoever has to end them."""


class SentPart(ResourceModel):
    """A part that the store has acknowledged."""

    number: PositiveCount
    etag: str
    crc32c: str
    """Base64, as S3's headers have it."""


class Upload(ResourceModel):
    """What a journal holds: a multipart upload that was begun."""

    key: str
    upload_id: str
    size: Count
    sha256: str
    part_bytes: PositiveCount
    parts: tuple[SentPart, ...] = ()
    is_copy: bool = False
    """Whether all of its parts are copied in the store from content that is known."""


def part_bytes(size: int) -> int:
    """The size of the parts of a file."""
    return max(MIN_PART_BYTES, -(-size // MAX_PARTS))


def facts_of(path: Path) -> local_files.FileFacts:
    """Reads a file once: the SHA-256 of the whole, and the CRC32C of each part that it would go up in.

    CRC32C costs a twentieth of a second digest, and only has to show damage on the way of a part.
    """
    whole, sums, size, count = hashlib.sha256(), [], path.stat().st_size, 0
    length = part_bytes(size)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(min(_CHUNK, length - count % length)):
            whole.update(chunk)
            if count % length == 0:
                sums.append(0)
            sums[-1] = crc32c(sums[-1], chunk)
            count += len(chunk)
    if count != size:
        raise Damaged(f"{path}: changed while it was read")
    return local_files.FileFacts(
        size, whole.hexdigest(), tuple(base64.b64encode(each.to_bytes(4, "big")).decode() for each in sums)
    )


def is_large(facts: local_files.FileFacts, origin: Origin) -> bool:
    """Whether a file goes up in parts; one whose content is known does so to be copied."""
    return facts.size > SINGLE_PUT_BYTES or (facts.size >= COPY_BYTES and facts.sha256 in origin.known)


def send(
    store: Store, key: str, path: Path, facts: local_files.FileFacts, metadata: Mapping[str, str],
    conditions: Mapping[str, str], on_bytes: OnBytes, origin: Origin,
) -> None:  # fmt: skip
    """Uploads a file in parts, and goes on with an upload that the journal remembers.

    Raises:
        PreconditionFailed: another object is in its place, which may be this one after a lost reply.
        Damaged: the file is not what `facts` says.
        StorageError: the upload broke off; with a journal, the parts that arrived stay.
    """
    if not facts.parts:
        found = facts_of(path)
        if found != facts:
            raise Damaged(f"{path}: changed while it was uploaded")
        facts = found
    upload = _continued(store, key, facts, origin)
    if upload is None or upload.is_copy:
        upload = _copied_whole(store, key, facts, metadata, origin, upload)
    upload = upload or _begin(store, key, facts, metadata, origin)
    try:
        upload = _send_missing(store, upload, path, facts, on_bytes, origin)
        parts = [_completed(upload, part) for part in upload.parts]
        with store.naming(key):
            store.client.complete_multipart_upload(
                Bucket=store.bucket, Key=store.full_key(key), UploadId=upload.upload_id,
                MultipartUpload={"Parts": parts}, **conditions,  # type: ignore[arg-type]
            )  # fmt: skip
    except ObjectMissing as error:
        _forget(origin, upload)
        raise PreconditionFailed(f"{error}: the upload has ended, perhaps well, while its reply was lost") from error
    except (PreconditionFailed, Damaged):
        _abort(store, upload)
        _forget(origin, upload)
        raise
    except BaseException:
        if origin.journal is None:
            _abort(store, upload)
        raise
    _forget(origin, upload)


def _completed(upload: Upload, part: SentPart) -> "CompletedPartTypeDef":
    """As the request to complete names a part."""
    named: CompletedPartTypeDef = {"PartNumber": part.number, "ETag": part.etag}
    return named if upload.is_copy else {**named, "ChecksumCRC32C": part.crc32c}


def _begin(
    store: Store, key: str, facts: local_files.FileFacts, metadata: Mapping[str, str], origin: Origin, *,
    is_copy: bool = False,
) -> Upload:  # fmt: skip
    # A copied part brings the checksums of its source, or none: into an upload with an algorithm, some stores let no part
    # be copied, and others give the wrong sum.
    algorithm: Any = {} if is_copy else {"ChecksumAlgorithm": "CRC32C"}
    with store.naming(key):
        answer = store.client.create_multipart_upload(
            Bucket=store.bucket, Key=store.full_key(key), Metadata=metadata, **algorithm
        )
    if not (upload_id := answer.get("UploadId", "")):
        raise NotAStore(
            f"{store.uri_of(key)} at {store.endpoint}: the endpoint is not an S3 store: it begins no uploads in parts"
        )
    upload = Upload(
        key=key, upload_id=upload_id, size=facts.size, sha256=facts.sha256, part_bytes=part_bytes(facts.size),
        is_copy=is_copy,
    )  # fmt: skip
    if origin.recorder is not None:
        origin.recorder.begun(key, upload_id)
    _remember(origin.journal, upload)
    return upload


def _continued(store: Store, key: str, facts: local_files.FileFacts, origin: Origin) -> Upload | None:
    """The upload that the journal remembers, with the parts that the store has; None if there is none to go on with."""
    if origin.journal is None:
        return None
    try:
        upload = Upload.model_validate_json(origin.journal.read_bytes())
    except (OSError, ValidationError):
        return None
    is_same = (upload.key, upload.size, upload.sha256) == (key, facts.size, facts.sha256)
    is_known = not upload.is_copy or facts.sha256 in origin.known
    if not is_same or not is_known or upload.part_bytes != part_bytes(facts.size):
        _abort(store, upload)
        _forget(origin, upload)
        return None
    try:
        there = _stored_parts(store, upload)
    except CredentialsRefused as error:
        # Going on is a saving, for which there may be no right. Credentials that are refused altogether cannot end it either.
        store.abort_upload(upload.key, upload.upload_id)
        log.info("%s: sent again from the start: %s", store.uri_of(key), error)
        _forget(origin, upload)
        return None
    except ObjectMissing:
        _abort(store, upload)
        _forget(origin, upload)
        if store.head(key) is not None:
            raise PreconditionFailed(f"{store.uri_of(key)}: is there already") from None
        return None
    kept = tuple(part for part in upload.parts if there.get(part.number) == part.etag)
    log.info("%s: resumed with %d of %d parts sent", store.uri_of(key), len(kept), len(facts.parts))
    return upload.model_copy(update={"parts": kept})


def _stored_parts(store: Store, upload: Upload) -> dict[int, str]:
    pages = store.client.get_paginator("list_parts").paginate(
        Bucket=store.bucket, Key=store.full_key(upload.key), UploadId=upload.upload_id
    )
    with store.naming(upload.key):
        return {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", ())}


def _copied_whole(
    store: Store,
    key: str,
    facts: local_files.FileFacts,
    metadata: Mapping[str, str],
    origin: Origin,
    begun: Upload | None,
) -> Upload | None:
    """An upload of which the store has copied all parts from content that it has; None if it has none, or did not."""
    if facts.sha256 not in origin.known:
        return None
    upload = begun or _begin(store, key, facts, metadata, origin, is_copy=True)
    try:
        upload = _send_missing(store, upload, Path(), facts, ignore_bytes, origin)
    except StorageError as error:
        # Some stores answer 500 to what they may not copy. One that is away cannot end the upload either, and is gone on with.
        try:
            store.abort_upload(upload.key, upload.upload_id)
        except EndpointUnreachable:
            raise
        except StorageError as refused:
            log.info("an upload could not be ended: %s", refused)
        log.info("%s: sent, since it could not be copied: %s", store.uri_of(key), error)
        _forget(origin, upload)
        return None
    return upload


def _send_missing(
    store: Store, upload: Upload, path: Path, facts: local_files.FileFacts, on_bytes: OnBytes, origin: Origin
) -> Upload:
    sent = {part.number: part for part in upload.parts if part.crc32c == facts.parts[part.number - 1]}
    lock = threading.Lock()

    def send_part(number: int) -> None:
        with _in_flight:
            if upload.is_copy:
                etag = _copied(store, upload, origin.known[facts.sha256], number, facts)
            else:
                etag = _sent(store, upload, path, number, facts, on_bytes)
        with lock:
            sent[number] = SentPart(number=number, etag=etag, crc32c=facts.parts[number - 1])
            _remember(origin.journal, _with_parts(upload, sent))

    missing = [number for number in range(1, len(facts.parts) + 1) if number not in sent]
    parallel.each(send_part, missing, PARALLEL_PARTS)
    return _with_parts(upload, sent)


def _sent(
    store: Store, upload: Upload, path: Path, number: int, facts: local_files.FileFacts, on_bytes: OnBytes
) -> str:
    first = (number - 1) * upload.part_bytes
    with FileBody(path, first, min(upload.part_bytes, facts.size - first)) as body, store.naming(upload.key):
        answer = store.data_client.upload_part(
            Bucket=store.bucket, Key=store.full_key(upload.key), UploadId=upload.upload_id, PartNumber=number,
            Body=body, ChecksumCRC32C=facts.parts[number - 1],  # type: ignore[arg-type]
        )  # fmt: skip
    on_bytes(body.size)
    return store.etag(answer, upload.key)


def _copied(store: Store, upload: Upload, source: str, number: int, facts: local_files.FileFacts) -> str:
    """The ETag of a part that the store has copied from `source`.

    Raises:
        StorageError: it did not, whatever it says.
    """
    first = (number - 1) * upload.part_bytes
    last = min(first + upload.part_bytes, facts.size) - 1
    with store.naming(source):
        answer: Any = store.client.upload_part_copy(
            Bucket=store.bucket, Key=store.full_key(upload.key), UploadId=upload.upload_id, PartNumber=number,
            CopySource={"Bucket": store.bucket, "Key": store.full_key(source)},
            CopySourceRange=f"bytes={first}-{last}",
        ).get("CopyPartResult", {})  # fmt: skip
    etag = str(answer.get("ETag", ""))
    if etag.strip('"') in ("", _MD5_OF_NOTHING):
        raise Unsupported(
            f"{store.uri_of(source)} at {store.endpoint}: the store says that it has copied a part, and has not"
        )
    return etag


def _with_parts(upload: Upload, sent: Mapping[int, SentPart]) -> Upload:
    return upload.model_copy(update={"parts": tuple(sent[number] for number in sorted(sent))})


def _abort(store: Store, upload: Upload) -> None:
    """The first error counts; what stays is ended by the commit, or by the next attempt's sweep."""
    try:
        store.abort_upload(upload.key, upload.upload_id)
    except StorageError as error:
        log.info("an upload could not be ended: %s", error)


def _remember(journal: Path | None, upload: Upload) -> None:
    if journal is not None:
        local_files.write_whole(journal, upload.model_dump_json().encode())


def _forget(origin: Origin, upload: Upload) -> None:
    if origin.recorder is not None:
        origin.recorder.ended(upload.upload_id)
    if origin.journal is not None:
        origin.journal.unlink(missing_ok=True)
