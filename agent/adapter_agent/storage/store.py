"""One place in object storage: an S3 bucket and prefix, with conditional writes. Keys are relative to the prefix."""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from adapter_agent.errors import (
    BucketMissing,
    Damaged,
    EndpointUnreachable,
    NotAStore,
    NotModified,
    ObjectMissing,
    StorageError,
    TooLarge,
    Unsupported,
)
from adapter_agent.storage import clients
from adapter_agent.storage.answers import LIBRARY_ERRORS, explain
from adapter_agent.storage.clients import ATTEMPTS, CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS
from adapter_agent.storage.connections import Connections
from adapter_agent.storage.dialect import PLAIN, Dialect
from adapter_agent.storage.direct_content import DirectReceiver
from adapter_agent.storage.file_body import DirectSender
from adapter_agent.storage.pace import TOO_SLOW, watched
from adapter_agent.storage.tls import authorities_of
from adapter_api.base import split_s3_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Largest object that is read into memory as a whole, an index or a manifest, never a tensor; and that is written so."""
_DELETE_BATCH = 1000
MAX_COPY_BYTES = 5 * 2**30
"""AWS copies no more with one request."""
_CHUNK = 64 * 2**10
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_TORN_SECONDS = 0.05
"""Before a document is read again whose ETag is not of its content."""


@dataclass(frozen=True)
class ObjectFacts:
    """What storage says about one object."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Empty where a listing delivered the facts."""

    @property
    def is_marker(self) -> bool:
        """Whether it is how consoles mark a folder: an empty object by its name; of the address itself, without any."""
        return not self.key or self.key.endswith("/")


class _BrokenOff(EndpointUnreachable):
    """The reading of an answer ended before the answer did."""


def _may_belong_together(body: bytes, etag: str) -> bool:
    matched = _MD5.fullmatch(etag)
    return matched is None or matched[1] == hashlib.md5(body, usedforsecurity=False).hexdigest()


def checksum(body: bytes) -> str:
    """SHA-256 in the spelling of S3's checksum headers."""
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


class Store:
    """A bucket and prefix. Every method raises a `StorageError` that names place, cause and remedy.

    Instances may be used by several threads.
    """

    def __init__(
        self, uri: str, session: Session, endpoint_url: str | None, region: str | None,
        new_session: Callable[[], Session] | None = None, *, conditional: bool = True, dialect: Dialect = PLAIN,
    ) -> None:  # fmt: skip
        self.uri = uri.rstrip("/")
        self.dialect = dialect
        self.conditional = conditional
        """Whether conditions are sent; False for a store that has none, and where writers keep to places of their own."""
        self.last_number: int | None = None
        """Of the last index that this process has written, where there are no conditions."""
        self.parsed: dict[str, tuple[str, Any]] = {}
        """Documents as they were read last: key -> ETag, and what was made of it."""
        self.bucket, self.prefix = split_s3_uri(self.uri)
        self._place = endpoint_url, region
        self._new_session = new_session
        self._use(session)

    def _use(self, session: Session) -> None:
        self._session = session
        self.client = self._open()
        self.__dict__.pop("data_client", None)

    @property
    def _open(self) -> "partial[S3Client]":
        return partial(clients.open_client, self._session, *self._place, self.dialect, self.conditional)

    @contextmanager
    def racing_client(self, connections: int, read_timeout: float, attempts: int) -> "Iterator[S3Client]":
        """A client of its own inside the block, for so many requests at once."""
        client = self._open(read_timeout, attempts, connections=connections)
        try:
            yield client
        finally:
            client.close()

    def compare_etags(self) -> None:
        """From now on digests travel as MD5: this store takes bodies whose checksum is wrong."""
        self.dialect = replace(self.dialect, checksums="MD5")
        self._use(self._session)

    @cached_property
    def data_client(self) -> "S3Client":
        """For files: their checksums are explicit and what restores them verifies SHA-256, so bodies aren't signed as well.

        Without TLS the SDK would hash each body once more for its signature. Documents, which hold the digests, are signed.
        """
        client = self._open(sign_payloads=False)
        connections = Connections(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, authorities_of(self._session))
        DirectSender.serve(client, connections)
        DirectReceiver.serve(client, connections)
        return client

    @classmethod
    def connect(
        cls,
        uri: str,
        endpoint_url: str | None = None,
        region: str | None = None,
        variables: str = "",
        *,
        conditional: bool = True,
        dialect: Dialect = PLAIN,
    ) -> "Store":
        """A store at `uri`; sends nothing yet.

        Credentials come from a mounted Secret or the usual AWS environment, as they are now; or from variables with the
        prefix `variables`, if there are such.
        """
        new_session = clients.sessions(variables)
        try:
            return cls(uri, new_session(), endpoint_url, region, new_session, conditional=conditional, dialect=dialect)
        except (BotoCoreError, ValueError) as error:
            raise explain(error, uri, endpoint_url or "AWS") from error

    def renew_credentials(self) -> None:
        """Looks for credentials anew, after the store has refused those that were found. Called between requests.

        The SDK renews by itself what has a time of expiry (a pod's or an instance's role); files it reads only once.
        """
        if self._new_session is not None:
            with self.naming(""):
                self._use(self._new_session())

    @property
    def endpoint(self) -> str:
        """Where requests go, for messages."""
        return self.client.meta.endpoint_url

    def full_key(self, key: str) -> str:
        """The key as the bucket has it."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def uri_of(self, key: str) -> str:
        """Address of the object or folder `key`."""
        return f"{self.uri}/{key}"

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Turns the SDK's errors inside the block into ours, naming `key`."""
        try:
            yield
        except LIBRARY_ERRORS as error:
            raise explain(error, self.uri_of(key) if key else self.uri, self.endpoint, self.bucket) from error

    def check(self) -> None:
        """Asks whether the bucket is there and may be read, and gives up within about 15 seconds."""
        client = self._open(5, 2)
        try:
            with self.naming(""):
                client.list_objects_v2(Bucket=self.bucket, Prefix=self.full_key("checkpoints.json"), MaxKeys=1)
        finally:
            client.close()

    def create_bucket_if_missing(self) -> None:
        """Makes the bucket unless it is there."""
        try:
            self.check()
        except BucketMissing:
            # Another process may be faster.
            exists = self.client.exceptions.BucketAlreadyOwnedByYou, self.client.exceptions.BucketAlreadyExists
            with self.naming(""), suppress(*exists):
                self.client.create_bucket(Bucket=self.bucket)

    def get(self, key: str) -> tuple[bytes, str]:
        """Content and ETag of a small object.

        Raises:
            ObjectMissing: there is none.
            Damaged: larger than MAX_DOCUMENT_BYTES.
            EndpointUnreachable: no answer, or one that broke off each time, or came too slowly.
        """
        return self._get(key, {})

    def get_if_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """The same; None while the object is the one whose ETag is `etag`."""
        try:
            return self._get(key, {"IfNoneMatch": etag})
        except NotModified:
            return None

    def _get(self, key: str, condition: dict[str, str]) -> tuple[bytes, str]:
        """Content and ETag of one and the same object.

        While one is replaced, some stores (versitygw 1.8 over a file system) answer with the content of one and the ETag of
        the other: a change under that ETag would undo another one. Where ETags are not the content's MD5, as with keys of a
        key management service, the same answer comes twice.
        """
        before: tuple[bytes, str] | None = None
        while True:
            read = self._get_persistently(key, condition)
            if read == before or _may_belong_together(*read):
                return read
            before = read
            time.sleep(_TORN_SECONDS)

    def _get_persistently(self, key: str, condition: dict[str, str]) -> tuple[bytes, str]:
        tries = 0
        while True:
            try:
                return self._get_once(key, condition)
            except _BrokenOff:
                # The SDK repeats requests, but not the reading of what they return.
                tries += 1
                if tries == ATTEMPTS:
                    raise

    def _get_once(self, key: str, condition: dict[str, str]) -> tuple[bytes, str]:
        with self.naming(key):
            try:
                answer: Any = self.client.get_object(Bucket=self.bucket, Key=self.full_key(key), **condition)  # type: ignore[arg-type]
            except HTTPError as error:  # a refusal broke off
                raise _BrokenOff(f"{self.uri_of(key)} at {self.endpoint}: {error}") from error
            etag = self.etag(answer, key)
            body = answer[
                "Body"
            ]  # which compares what it reads with the length that was announced; its stream does not
            with body as stream, watched(stream) as pace:
                chunks, size = [], 0
                try:
                    while size <= MAX_DOCUMENT_BYTES and (chunk := body.read(_CHUNK)):
                        chunks.append(chunk)
                        size += len(chunk)
                        pace.came(len(chunk))
                except (BotoCoreError, HTTPError, OSError) as error:
                    reason = TOO_SLOW if pace.was_too_slow else error
                    raise _BrokenOff(f"{self.uri_of(key)} at {self.endpoint}: {reason}") from error
                if pace.was_too_slow:
                    raise _BrokenOff(f"{self.uri_of(key)} at {self.endpoint}: {TOO_SLOW}")
            if size > MAX_DOCUMENT_BYTES:
                raise Damaged(f"{self.uri_of(key)}: more than {MAX_DOCUMENT_BYTES} bytes are too many for a document")
            return b"".join(chunks), etag

    def etag(self, answer: Mapping[str, Any], key: str) -> str:
        """The ETag in an answer, which every store gives."""
        if "ETag" not in answer:
            raise NotAStore(
                f"{self.uri_of(key)} at {self.endpoint}: the endpoint is not an S3 store: its reply has no ETag; check the "
                "endpoint URL, and proxies between"
            )
        return str(answer["ETag"])

    def head(self, key: str) -> ObjectFacts | None:
        """Size, ETag and metadata of an object; None where there is none."""
        try:
            with self.naming(key):
                answer = self.client.head_object(Bucket=self.bucket, Key=self.full_key(key))
        except ObjectMissing:
            return None
        # Header names have no case, and proxies write them as they like: Go's has "Sha256" for "sha256".
        metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
        etag = self.etag(answer, key)
        size: int | None = answer.get("ContentLength")  # which a proxy may have taken away
        return ObjectFacts(key, self._listed_size(key) if size is None else size, etag, metadata)

    def _listed_size(self, key: str) -> int:
        """Where a proxy takes the length out of the reply to a HEAD."""
        found = next((facts.size for facts in self.list(key) if facts.key == key), None)
        if found is None:
            raise ObjectMissing(f"{self.uri_of(key)} at {self.endpoint}: does not exist")
        return found

    def put(self, key: str, body: bytes) -> str:
        """Writes an object whatever is there; returns its ETag."""
        return self._put(key, body, None, {})

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Creates an object; returns its ETag.

        Raises:
            PreconditionFailed: one is there already, which may be this one after a lost reply.
        """
        return self._put(key, body, metadata, {"IfNoneMatch": "*"})

    def replace_if_match(self, key: str, body: bytes, etag: str, metadata: Mapping[str, str] | None = None) -> str:
        """Replaces the object whose ETag is `etag`; returns the new ETag.

        Raises:
            PreconditionFailed: another object is there now, which may be this one after a lost reply.
        """
        return self._put(key, body, metadata, {"IfMatch": etag})

    def _put(self, key: str, body: bytes, metadata: Mapping[str, str] | None, condition: dict[str, str]) -> str:
        if len(body) > MAX_DOCUMENT_BYTES:
            raise TooLarge(
                f"{self.uri_of(key)}: {len(body)} bytes are more than readers accept ({MAX_DOCUMENT_BYTES}); keep fewer "
                "checkpoints (checkpoint.keep_last), or fewer files in each"
            )
        with self.naming(key):
            answer = self.client.put_object(
                Bucket=self.bucket, Key=self.full_key(key), Body=body, ChecksumSHA256=checksum(body),
                Metadata=metadata or {}, **condition,  # type: ignore[arg-type]
            )  # fmt: skip
        return self.etag(answer, key)

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        """Every object whose key starts with `prefix`."""
        start = self.full_key(prefix)
        if start and not prefix:
            start += "" if start.endswith("/") else "/"
        with self.naming(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
                self._refuse_cut(page)
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(f"{self.prefix}/" if self.prefix else "")
                    yield ObjectFacts(key, entry["Size"], entry["ETag"])

    def holds_any(self, prefix: str) -> bool:
        """Whether there is an object whose key starts with `prefix`, apart from the markers that consoles make of folders."""
        return any(not facts.is_marker for facts in self.list(prefix))

    def folders(self) -> Iterator[str]:
        """Names of the folders directly below the prefix."""
        start = f"{self.prefix}/" if self.prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start, Delimiter="/")
        with self.naming(""):
            for page in pages:
                self._refuse_cut(page)
                for entry in page.get("CommonPrefixes", ()):
                    yield entry["Prefix"].removeprefix(start).rstrip("/")

    def _refuse_cut(self, page: Mapping[str, Any]) -> None:
        """The SDK takes a page without a token for the last one, whatever it says."""
        if page.get("IsTruncated") and not page.get("NextContinuationToken"):
            raise Unsupported(
                f"{self.uri} at {self.endpoint}: the store lists no more than the first objects (it knows no ListObjectsV2); "
                "use one that does"
            )

    def copy(self, source: str, target: str, size: int) -> None:
        """Copies an object of `size` bytes within the store, whatever is in its place there.

        Raises:
            ObjectMissing: there is no source.
            StorageError: the store says that it has copied it, and has not.
        """
        self._copy(source, target, size)
        copied = self.head(target)
        if copied is None or copied.size != size:
            raise StorageError(
                f"{self.uri_of(target)} at {self.endpoint}: the store says that it has copied {source}, and has not"
            )

    def _copy(self, source: str, target: str, size: int) -> None:
        place: CopySourceTypeDef = {"Bucket": self.bucket, "Key": self.full_key(source)}
        bucket, key = self.bucket, self.full_key(target)
        with self.naming(source):
            if size <= MAX_COPY_BYTES:
                self.client.copy_object(Bucket=bucket, Key=key, CopySource=place)
                return
            upload_id = self.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            parts: list[CompletedPartTypeDef] = []
            for number, first in enumerate(range(0, size, MAX_COPY_BYTES), 1):
                copied = self.client.upload_part_copy(
                    Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, CopySource=place,
                    CopySourceRange=f"bytes={first}-{min(first + MAX_COPY_BYTES, size) - 1}",
                )["CopyPartResult"]  # fmt: skip
                parts.append({"PartNumber": number, "ETag": self.etag(copied, target)})
            self.client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

    def delete(self, *keys: str) -> None:
        """Deletes objects; a key without one is no error."""
        for begin in range(0, len(keys), _DELETE_BATCH):
            batch = keys[begin : begin + _DELETE_BATCH]
            with self.naming(batch[0]):
                answer = self.client.delete_objects(
                    Bucket=self.bucket,
                    Delete={"Objects": [{"Key": self.full_key(key)} for key in batch], "Quiet": True},
                )
                for fault in answer.get("Errors", ()):
                    said: Any = {"Code": fault.get("Code", ""), "Message": fault.get("Message", "")}
                    raise ClientError({"Error": said}, "DeleteObjects")

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Ends a multipart upload, whose parts are stored, and paid, unseen; one that has ended already is no error."""
        # Stores name it NoSuchUpload, NoSuchKey or plainly 404.
        with suppress(ObjectMissing), self.naming(key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.full_key(key), UploadId=upload_id)
