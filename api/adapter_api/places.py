"""Where a job reads and writes: object storage, how it is reached, and volumes."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from adapter_api.base import S3URI, Count, Flag, PathText, ResourceModel
from adapter_api.kubernetes import ObjectName, SecretRef, ShortText

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._/-]*)?")


def _endpoint(value: str) -> str:
    # The value is not repeated: what does not fit is often an address that carries a password.
    if not _ENDPOINT.fullmatch(value) or not _reachable(value):
        raise ValueError("is not an endpoint; write http(s)://host:port, with credentials in secretRef only")
    return value.rstrip("/")


def _reachable(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, an unfinished IPv6 address
        return False


Endpoint = Annotated[str, Field(max_length=512), AfterValidator(_endpoint)]


Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")]


class S3Access(ResourceModel):
    """How to access object storage."""

    endpoint_url: Endpoint | None = Field(default=None, alias="endpointURL")
    """URL of an S3-compatible store; by default AWS S3."""
    region: Region | None = None
    """Region of the bucket."""
    addressing_style: Literal["Path", "Virtual"] | None = None
    """Where requests name the bucket: in the path, https://host/bucket, or in the host name, https://bucket.host. By
    default in the path if endpointURL is set, else as AWS expects it."""
    requester_pays: Flag = False
    """Whether requests agree to pay, for buckets whose owner charges the requester."""
    secret_ref: SecretRef | None = None
    """Secret that holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; by default the pod's own identity is used."""


class S3Location(S3Access):
    """An address in object storage, and how to access it."""

    uri: S3URI
    """Address in object storage, s3://bucket/prefix."""


class ServerSideEncryption(ResourceModel):
    """Server-side encryption of stored objects, if the bucket's default is not wanted or not allowed."""

    algorithm: Literal["AES256", "aws:kms", "aws:kms:dsse"]
    """AES256: keys of the store. aws:kms, aws:kms:dsse: a key of a key management service, used once or twice."""
    kms_key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_.-]{1,512}$")] | None = Field(
        default=None, alias="kmsKeyID"
    )
    """ID or ARN of the key; not for AES256. By default the account's default key."""

    @model_validator(mode="after")
    def _key_of_kms(self) -> Self:
        if self.kms_key_id is not None and self.algorithm == "AES256":
            raise ValueError("kmsKeyID needs algorithm aws:kms; AES256 uses keys of the store's own")
        return self


class OutputLocation(S3Location):
    """Where checkpoints are stored."""

    conditional_writes: Flag = True
    """Whether the store supports conditional writes; a store that does not is refused unless this is false. With false,
    every attempt writes below its own prefix attempts/<n>/, other clients cannot pin or delete checkpoints, and two
    jobs must never use the same address."""
    checksums: Literal["SHA256", "MD5"] = "SHA256"
    """Checksum sent with every upload. MD5 sends Content-MD5 and no x-amz-checksum headers, for stores that reject
    those."""
    server_side_encryption: ServerSideEncryption | None = None
    """Encryption requested for every written object; by default the bucket decides."""


class ClaimSource(ResourceModel):
    """A folder on a PersistentVolumeClaim."""

    claim_name: ObjectName
    """Name of the PersistentVolumeClaim."""
    path: ShortText = ""
    """Folder inside the volume; by default its root."""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} must be relative to the volume and stay inside it")
        return self


class Data(ResourceModel):
    """Source of the training data. On a cluster exactly one of s3 and pvc; for `atj run`, folder replaces them."""

    s3: S3Location | None = None
    """Folder in object storage, copied to each node before training."""
    pvc: ClaimSource | None = None
    """Folder on an existing volume."""
    folder: PathText | None = None
    """Folder on the machine that runs `atj run`, absolute or relative to the current directory. It is read in place and
    takes precedence over s3 and pvc there. Pods ignore it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.s3 is not None and self.pvc is not None:
            raise ValueError("give exactly one of s3 and pvc")
        if self.s3 is None and self.pvc is None and self.folder is None:
            raise ValueError("give exactly one of s3 and pvc; or, for `atj run` alone, folder")
        return self

    @property
    def is_here_only(self) -> bool:
        """Whether only `atj run` can train on it: no pod can."""
        return self.s3 is None and self.pvc is None


class Output(ResourceModel):
    """Where the results are stored."""

    s3: OutputLocation
    """Address in object storage."""


class ResumeFrom(S3Location):
    """The output of another run, or a copy of one checkpoint folder, to start from."""

    step: Count | None = None
    """Step of the checkpoint to start from; by default the newest."""
