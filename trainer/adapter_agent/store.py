"""One place in object storage: an S3 bucket and prefix, with conditional writes. Keys are relative to the prefix."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from adapter_agent.connections import Connections
from adapter_agent.direct_content import DirectReceiver
from adapter_agent.errors import BucketMissing, Damaged, EndpointUnreachable, ObjectMissing, explain
from adapter_agent.file_body import DirectSender
from adapter_agent.proxies import is_loopback
from adapter_api.base import split_s3_uri
from adapter_api.launch import CREDENTIALS_FOLDER

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Largest object that is read into memory as a whole: an index or a manifest, never a tensor."""
CONNECT_TIMEOUT_SECONDS = 4
READ_TIMEOUT_SECONDS = 60
ATTEMPTS = 3
"""Tries of one request. With the connect timeout it keeps the report of a dead endpoint within 15 seconds."""
MAX_CONNECTIONS = 16
_DELETE_BATCH = 1000
MAX_COPY_BYTES = 5 * 2**30
"""AWS copies no more with one request."""


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


def checksum(body: bytes) -> str:
    """SHA-256 in the spelling of S3's checksum headers."""
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


# Only the client's plain calls are used, here and in transfer.py, never boto3's transfer manager: it takes no conditions,
# and where the CRT library is installed it may ignore the endpoint (boto3's preferred_transfer_client).
def _client(
    session: Session, endpoint_url: str | None, region: str | None, conditional: bool, read_timeout: float,  # noqa: FBT001
    attempts: int, *, sign_payloads: bool = True,
) -> "S3Client":  # fmt: skip
    client = session.client(
        "s3",
        endpoint_url=endpoint_url,
        # Without one in the job or the environment: S3-compatible stores need some region to sign for.
        region_name=region or session.region_name or "us-east-1",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=MAX_CONNECTIONS,
            proxies={} if endpoint_url is not None and is_loopback(endpoint_url) else None,
            s3={
                "addressing_style": "path" if endpoint_url else "auto",
                **({} if sign_payloads else {"payload_signing_enabled": False}),
            },
            # Automatic checksums travel as trailers, which several S3-compatible stores refuse; ours are explicit.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    if not conditional:
        # A store may refuse what it does not know, and a condition that is ignored is better not sent.
        for operation in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(f"before-parameter-build.s3.{operation}", _remove_conditions)
    return client


def _remove_conditions(params: dict[str, object], **_: object) -> None:
    for name in ("IfNoneMatch", "IfMatch"):
        params.pop(name, None)


CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def _mounted(folder: Path) -> list[str | None]:
    """What a Secret that is mounted at `folder` says now; nothing where none is mounted."""
    # Kubernetes replaces all files of a Secret at once, by a link: those of two versions do not mix.
    folder = (folder / "..data").resolve() if (folder / "..data").exists() else folder
    files = (folder / name for name in CREDENTIALS)
    return [file.read_text(encoding="utf-8").strip() or None if file.is_file() else None for file in files]


class Store:
    """A bucket and prefix. Every method raises a `StorageError` that names place, cause and remedy.

    Instances may be used by several threads.
    """

    def __init__(
        self, uri: str, session: Session, endpoint_url: str | None, region: str | None,
        new_session: Callable[[], Session] | None = None, *, conditional: bool = True,
    ) -> None:  # fmt: skip
        self.uri = uri.rstrip("/")
        self.conditional = conditional
        """Whether conditions are sent; False for a store that has none, and where writers keep to places of their own."""
        self.last_number: int | None = None
        """Of the last index that this process has written, where there are no conditions."""
        self.bucket, self.prefix = split_s3_uri(self.uri)
        self._place = endpoint_url, region
        self._new_session = new_session
        self._use(session)

    def _use(self, session: Session) -> None:
        self._open = partial(_client, session, *self._place, self.conditional)
        self.client = self._open(READ_TIMEOUT_SECONDS, ATTEMPTS)
        self.__dict__.pop("data_client", None)

    @cached_property
    def data_client(self) -> "S3Client":
        """For files: their checksums are explicit and what restores them verifies SHA-256, so bodies aren't signed as well.

        Without TLS the SDK would hash each body once more for its signature. Documents, which hold the digests, are signed.
        """
        client = self._open(READ_TIMEOUT_SECONDS, ATTEMPTS, sign_payloads=False)
        connections = Connections(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
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
    ) -> "Store":
        """A store at `uri`; sends nothing yet.

        Credentials come from a mounted Secret or the usual AWS environment, as they are now; or from variables with the
        prefix `variables`, if there are such.
        """

        def new_session() -> Session:
            # Not boto3's default session, which remembers the credentials that it found first.
            own = (os.environ.get(f"{variables}{name}") or None for name in CREDENTIALS)
            key, secret, token = own if variables else _mounted(Path(CREDENTIALS_FOLDER))
            return Session(key, secret, token)

        try:
            return cls(uri, new_session(), endpoint_url, region, new_session, conditional=conditional)
        except BotoCoreError as error:
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
        except (BotoCoreError, ClientError) as error:
            raise explain(error, self.uri_of(key) if key else self.uri, self.endpoint) from error

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
            EndpointUnreachable: no answer, or one that broke off each time.
        """
        with self.naming(key):
            tries = 0
            while True:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.full_key(key))
                with answer["Body"] as stream:
                    if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
                        raise Damaged(
                            f"{self.uri_of(key)}: {answer['ContentLength']} bytes are too many for a document"
                        )
                    try:
                        return stream.read(), answer["ETag"]
                    except (BotoCoreError, HTTPError) as error:
                        # The SDK repeats requests, but not the reading of what they return.
                        tries += 1
                        if tries == ATTEMPTS:
                            raise EndpointUnreachable(f"{self.uri_of(key)} at {self.endpoint}: {error}") from error

    def head(self, key: str) -> ObjectFacts | None:
        """Size, ETag and metadata of an object; None where there is none."""
        try:
            with self.naming(key):
                answer = self.client.head_object(Bucket=self.bucket, Key=self.full_key(key))
        except ObjectMissing:
            return None
        # Header names have no case, and proxies write them as they like: Go's has "Sha256" for "sha256".
        metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
        return ObjectFacts(key, answer["ContentLength"], answer["ETag"], metadata)

    def put(self, key: str, body: bytes) -> str:
        """Writes an object whatever is there; returns its ETag."""
        with self.naming(key):
            return self.client.put_object(
                Bucket=self.bucket, Key=self.full_key(key), Body=body, ChecksumSHA256=checksum(body)
            )["ETag"]

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Creates an object; returns its ETag.

        Raises:
            PreconditionFailed: one is there already, which may be this one after a lost reply.
        """
        with self.naming(key):
            return self.client.put_object(
                Bucket=self.bucket, Key=self.full_key(key), Body=body, ChecksumSHA256=checksum(body),
                Metadata=metadata or {}, IfNoneMatch="*",
            )["ETag"]  # fmt: skip

    def replace_if_match(self, key: str, body: bytes, etag: str, metadata: Mapping[str, str] | None = None) -> str:
        """Replaces the object whose ETag is `etag`; returns the new ETag.

        Raises:
            PreconditionFailed: another object is there now, which may be this one after a lost reply.
        """
        with self.naming(key):
            return self.client.put_object(
                Bucket=self.bucket, Key=self.full_key(key), Body=body, ChecksumSHA256=checksum(body),
                Metadata=metadata or {}, IfMatch=etag,
            )["ETag"]  # fmt: skip

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        """Every object whose key starts with `prefix`."""
        start = self.full_key(prefix)
        if start and not prefix:
            start += "" if start.endswith("/") else "/"
        with self.naming(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
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
                for entry in page.get("CommonPrefixes", ()):
                    yield entry["Prefix"].removeprefix(start).rstrip("/")

    def copy(self, source: str, target: str, size: int) -> None:
        """Copies an object of `size` bytes within the store, whatever is in its place there.

        Raises:
            ObjectMissing: there is no source.
        """
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
                parts.append({"PartNumber": number, "ETag": copied["ETag"]})
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
                    raise ClientError({"Error": {"Code": fault["Code"], "Message": fault["Message"]}}, "DeleteObjects")

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Ends a multipart upload, whose parts are stored, and paid, unseen; one that has ended already is no error."""
        # Stores name it NoSuchUpload, NoSuchKey or plainly 404.
        with suppress(ObjectMissing), self.naming(key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.full_key(key), UploadId=upload_id)
