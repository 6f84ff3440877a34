"""How one store is spoken to, beyond where it is: what it demands with each request, and what it does not understand.

Added to requests where the SDK builds them, so that whoever sends one need not know.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adapter_agent.errors import Damaged

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from adapter_api.places import S3Access

AddressingStyle = Literal["path", "virtual"]
Checksums = Literal["SHA256", "MD5"]
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_BLOCK = 2**20
_NOTE = "adapter_agent_md5"


@dataclass(frozen=True)
class Dialect:
    """What a store's requests are like."""

    addressing_style: AddressingStyle | None = None
    """Whether the bucket stands in the path or in the host's name; None: as AWS config says, else in the path of endpoints
    that are named."""
    requester_pays: bool = False
    checksums: Checksums = "SHA256"
    """MD5: no x-amz-checksum headers, which some stores refuse and others ignore, but Content-MD5, which all know; and the
    ETag that comes back is compared with it."""
    encryption: str | None = None
    """Value of x-amz-server-side-encryption."""
    kms_key_id: str | None = None

    def serve(self, client: "S3Client") -> None:
        """Makes a client speak so."""
        events = client.meta.events
        if self.requester_pays:
            events.register("before-parameter-build.s3", _pay)
        if self.encryption is not None:
            for operation in ("PutObject", "CreateMultipartUpload", "CopyObject"):
                events.register(f"before-parameter-build.s3.{operation}", self._encrypt)
        if self.checksums == "MD5":
            for operation in ("PutObject", "UploadPart"):
                events.register(f"before-parameter-build.s3.{operation}", _digest)
                events.register(f"after-call.s3.{operation}", _compare)
            events.register("before-parameter-build.s3.CreateMultipartUpload", _begin_without)
            events.register("before-parameter-build.s3.CompleteMultipartUpload", _complete_without)
            events.register("before-call.s3.DeleteObjects", _digest_request)

    def _encrypt(self, params: dict[str, Any], **_: Any) -> None:
        params["ServerSideEncryption"] = self.encryption
        if self.kms_key_id is not None:
            params["SSEKMSKeyId"] = self.kms_key_id


PLAIN = Dialect()


def dialect_of(location: "S3Access") -> Dialect:
    """What a job says about a place."""
    from adapter_api.places import OutputLocation  # which `train` does without

    style: Any = None if location.addressing_style is None else location.addressing_style.lower()
    if not isinstance(location, OutputLocation):
        return Dialect(style, location.requester_pays)
    asked = location.server_side_encryption
    algorithm, key = (None, None) if asked is None else (asked.algorithm, asked.kms_key_id)
    return Dialect(style, location.requester_pays, location.checksums, algorithm, key)


def _pay(params: dict[str, Any], model: Any, **_: Any) -> None:
    if "RequestPayer" in model.input_shape.members:
        params["RequestPayer"] = "requester"


def _digest(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    for name in ("ChecksumSHA256", "ChecksumCRC32C"):
        params.pop(name, None)
    digest = hashlib.md5(usedforsecurity=False)
    body = params.get("Body", b"")
    if isinstance(body, bytes):
        digest.update(body)
    else:
        while chunk := body.read(_BLOCK):
            digest.update(chunk)
        body.seek(0)
    params["ContentMD5"] = base64.b64encode(digest.digest()).decode()
    context[_NOTE] = digest.hexdigest()


def _compare(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """An ETag is the MD5 of what arrived, unless it was encrypted, or the store has ETags of another kind."""
    etag = _MD5.fullmatch(parsed.get("ETag", ""))
    if etag is None or parsed.get("ServerSideEncryption", "AES256") != "AES256":
        return
    if parsed.get("ResponseMetadata", {}).get("HTTPStatusCode") == 200 and etag[1] != context.get(_NOTE):
        raise Damaged("was damaged on its way to the store: what arrived has another MD5 than what was sent")


def _begin_without(params: dict[str, Any], **_: Any) -> None:
    params.pop("ChecksumAlgorithm", None)


def _complete_without(params: dict[str, Any], **_: Any) -> None:
    parts = params.get("MultipartUpload", {}).get("Parts", ())
    kept = [{name: part[name] for name in ("PartNumber", "ETag")} for part in parts]
    params["MultipartUpload"] = {"Parts": kept}


def _digest_request(params: dict[str, Any], **_: Any) -> None:
    """The SDK sends a checksum of its own with what S3 wants one for."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
