"""Where a job reads and writes: object storage, how it is reached, and volumes."""

import re
from typing import Annotated, Self
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


class S3Access(ResourceModel):
    """How to reach object storage."""

    endpoint_url: Endpoint | None = Field(default=None, alias="endpointURL")
    """Of an S3-compatible store; by default AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    """Region of the bucket."""
    secret_ref: SecretRef | None = None
    """Holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; by default the pod's own identity."""


class S3Location(S3Access):
    """A place in object storage and how to reach it."""

    uri: S3URI
    """Address, s3://bucket/prefix."""


class OutputLocation(S3Location):
    """Where checkpoints go."""

    conditional_writes: Flag = True
    """False for a store without conditional writes, which is refused otherwise. Every attempt then writes below a prefix of
    its own, attempts/<n>/; nobody else can pin or delete, and an output address must never serve two jobs at once."""


class ClaimSource(ResourceModel):
    """A folder on a PersistentVolumeClaim."""

    claim_name: ObjectName
    """Name of the PersistentVolumeClaim."""
    path: ShortText = ""
    """Folder inside the volume."""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} must be relative to the volume and stay inside it")
        return self


class Data(ResourceModel):
    """What is at /data before training starts: on a cluster exactly one of s3 and pvc, for `atj run` a folder."""

    s3: S3Location | None = None
    """A folder in object storage, staged to each node before training."""
    pvc: ClaimSource | None = None
    """A folder on a volume that exists."""
    folder: PathText | None = None
    """A folder of the machine that `atj run` is started on, absolute or from where it is started; read in place, and there in
    place of s3 and pvc. Pods cannot see it."""

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
    """Where results go."""

    s3: OutputLocation
    """A place in object storage."""


class ResumeFrom(S3Location):
    """Another run's output, or the folder of one checkpoint wherever it was copied to, to start from it."""

    step: Count | None = None
    """By default the newest of the run."""
