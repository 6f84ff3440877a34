"""What the answers of stores, and of what stands before them, mean: each as one of our errors, with the advice that fits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from adapter_agent.errors import (
    BucketMissing,
    ClockSkewed,
    CredentialsRefused,
    Damaged,
    EndpointUnreachable,
    NotAStore,
    NotModified,
    NotTrusted,
    ObjectMissing,
    PreconditionFailed,
    StorageError,
    StorageFull,
    Unsupported,
    WrongRegion,
)

LIBRARY_ERRORS = (BotoCoreError, ClientError, ResponseParserError, HTTPError, ValueError)
"""What the SDK raises. HTTPError: urllib3's, of a refusal whose body breaks off, which botocore 1.44 neither names nor repeats.
ValueError: of what cannot be put into a header or an address, such as a line break in a key."""
OVERLOADED = frozenset({
    "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "TooManyRequests",
    "TooManyRequestsException", "RequestLimitExceeded", "ServiceUnavailable", "Busy", "ServerBusy", "XMinioServerNotInitialized",
    "RequestTimeout", "429", "503",
})  # fmt: skip
"""Codes of answers that ask to come back later."""
CONDITIONS_REMEDY = "set output.s3.conditionalWrites: false"
CHECKSUMS_REMEDY = "set checksums: MD5 next to the address"

_ACCESS = "check the credentials and their rights on the bucket"
_ANSWERS: dict[type[StorageError], dict[str, str]] = {
    CredentialsRefused: {
        **dict.fromkeys(
            ("InvalidAccessKeyId", "XAdminUserNotFound", "InvalidAccessKey"),
            "the access key is unknown to the store; check AWS_ACCESS_KEY_ID",
        ),
        "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        **dict.fromkeys(
            ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), "the credentials have expired; renew them"
        ),
        **dict.fromkeys(
            ("InvalidToken", "InvalidTokenId", "InvalidSecurity"), "the session token is not valid; check AWS_SESSION_TOKEN"
        ),
        **dict.fromkeys(
            ("AccessDenied", "AllAccessDisabled"),
            "access denied; give these credentials read, write, list and delete rights on the bucket",
        ),
        **dict.fromkeys(("Forbidden", "403"), f"access denied; {_ACCESS}"),
        **dict.fromkeys(
            ("Unauthorized", "401"),
            f"what answers wants another kind of login; check that the endpoint is the store's S3 address, and {_ACCESS}",
        ),
    },
    BucketMissing: {
        "NoSuchBucket": "the bucket does not exist; create it, or correct the address",
    },
    ClockSkewed: {
        "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; synchronise it (NTP)",
    },
    ObjectMissing: dict.fromkeys(("NoSuchKey", "NotFound", "404", "NoSuchUpload"), "does not exist"),
    NotModified: dict.fromkeys(("NotModified", "304"), "is the same, or exists already"),
    PreconditionFailed: dict.fromkeys(
        ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "OperationAborted"),
        "changed meanwhile, or exists already",
    ),
    StorageFull: dict.fromkeys(
        ("InsufficientStorage", "507", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"),
        "the store has no space left; free or add some",
    ),
    WrongRegion: dict.fromkeys(
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        "the bucket is in another region; set the location's region",
    ),
    Damaged: {
        **dict.fromkeys(
            (
                "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
                "ChecksumMismatch", "InvalidChecksum",
            ),
            "was damaged on its way to the store, or the file changed meanwhile",
        ),
        "InvalidRange": "is shorter than what was committed",
    },
    EndpointUnreachable: dict.fromkeys(OVERLOADED, "the store is overloaded, and stayed so for as long as was waited"),
}  # fmt: skip
"""Kind of error -> the store's code -> what that means for the user."""
_NO_CREDENTIALS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.NoAuthTokenError,
)
_NO_ANSWER = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    botocore_errors.ResponseStreamingError,
    botocore_errors.IncompleteReadError,
)


@dataclass(frozen=True)
class Answer:
    """What is known of a refused request."""

    operation: str
    status: int
    code: str
    said: str
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def is_web_page(self) -> bool:
        """Stores answer in XML."""
        return self.headers.get("content-type", "").startswith("text/html")


_Meaning = tuple[type[StorageError], str]


def explain(error: Exception, place: str, endpoint: str, bucket: str = "") -> StorageError:
    """The error of ours that says what `error` means for the object or prefix `place`."""
    where = f"{place} at {endpoint}"
    if isinstance(error, ClientError):
        return _explain_answer(_answer(error), where, _doubt(endpoint, bucket))
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsRefused(
            f"{where}: no usable credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, botocore_errors.SSLError):
        return NotTrusted(f"{where}: {_tls(_cause(error))} ({_cause(error)})")
    if isinstance(error, (*_NO_ANSWER, HTTPError)):
        fault = "an answer broke off" if isinstance(error, HTTPError) else "the endpoint cannot be reached"
        return EndpointUnreachable(
            f"{where}: {fault} ({_cause(error)}); check the endpoint URL, that the store is "
            "running, and the network between"
        )
    if isinstance(error, ResponseParserError):
        return NotAStore(
            f"{where}: the endpoint is not an S3 store: it sends no XML; check host, port and path of the endpoint URL"
        )
    return StorageError(f"{where}: {' '.join(str(error).split())}")


def _answer(error: ClientError) -> Answer:
    response: Any = error.response
    about = response.get("ResponseMetadata", {})
    said = " ".join(str(response.get("Error", {}).get("Message", "") or error).split())
    return Answer(
        operation=error.operation_name,
        status=int(about.get("HTTPStatusCode", 0)),
        code=str(response.get("Error", {}).get("Code", "")),
        said=said[:500],
        headers={str(name).lower(): str(value) for name, value in about.get("HTTPHeaders", {}).items()},
    )


def _explain_answer(answer: Answer, where: str, doubt: str) -> StorageError:
    quoted = f"({answer.code}: {answer.said})"
    for applies, meaning in _SPECIAL:
        if applies(answer):
            kind, message = meaning(answer)
            return kind(f"{where}: {message} {quoted}")
    for kind, meanings in _ANSWERS.items():
        if said := meanings.get(answer.code):
            doubtful = kind in (BucketMissing, CredentialsRefused)
            return kind(f"{where}: {said}{doubt if doubtful else ''} {quoted}")
    if answer.status >= 500:
        return EndpointUnreachable(
            f"{where}: the store is in trouble ({answer.status} {answer.code}: {answer.said}); look at its log"
        )
    return StorageError(f"{where}: the store refused ({answer.status} {answer.code}: {answer.said}){doubt}")


def _doubt(endpoint: str, bucket: str) -> str:
    """A second suspicion, where the endpoint looks as if it held the bucket already, which requests then name twice."""
    parts = urlsplit(endpoint)
    if bucket and (f"{parts.hostname or ''}.".startswith(f"{bucket}.") or bucket in parts.path.split("/")):
        return f"; the endpoint URL seems to name bucket {bucket} already: give it without, as the address names it"
    return ""


def _tls(cause: str) -> str:
    if "WRONG_VERSION_NUMBER" in cause or "RECORD_LAYER" in cause:
        return "the endpoint does not speak TLS; write http:// in the endpoint URL, or correct the port"
    if "Hostname mismatch" in cause or "IP address mismatch" in cause or "doesn't match" in cause:
        return "the certificate is of another host; address the store by a name that its certificate holds"
    if "certificate has expired" in cause:
        return "the store's certificate has expired; renew it"
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        return (
            "the store's certificate is of an authority that is not known here; name a file with that authority's "
            "certificate in AWS_CA_BUNDLE"
        )
    return "TLS with the endpoint fails; check the endpoint URL, and proxies between"


def _region(answer: Answer) -> _Meaning:
    named = answer.headers.get("x-amz-bucket-region")
    return WrongRegion, f"the bucket is in region {named}; set the location's region so"


def _redirected(answer: Answer) -> _Meaning:
    target = urlsplit(answer.headers["location"])
    place = f"{target.scheme}://{target.netloc}" if target.netloc else answer.headers["location"][:200]
    return (
        NotAStore,
        f"the endpoint redirects to {place}, which requests that are signed cannot follow; set it as endpoint URL",
    )


_CONDITION = re.compile(r"if-?(none-?)?match|conditional|precondition", re.IGNORECASE)
_CHECKSUM = re.compile(r"checksum|x-amz-sdk|trailer|content-sha256", re.IGNORECASE)
_UNKNOWN_TO_IT = re.compile(r"not implemented|unsupported|not supported|unknown|not recogni[sz]ed", re.IGNORECASE)


def _is_unsupported(answer: Answer) -> bool:
    if answer.status in (405, 501) or answer.code in ("NotImplemented", "MethodNotAllowed"):
        return True
    named = _CONDITION.search(answer.said) or _CHECKSUM.search(answer.said)
    return answer.status == 400 and named is not None and _UNKNOWN_TO_IT.search(answer.said) is not None


def _unsupported(answer: Answer) -> _Meaning:
    if _CONDITION.search(answer.said):
        return Unsupported, f"the store has no conditional writes; {CONDITIONS_REMEDY}"
    if _CHECKSUM.search(answer.said):
        return Unsupported, f"the store takes no checksums of this kind; {CHECKSUMS_REMEDY}"
    if answer.operation.startswith("List"):
        return Unsupported, "the store does not list objects as S3 does (ListObjectsV2); use one that does"
    if answer.operation in ("PutObject", "CompleteMultipartUpload", "CreateMultipartUpload", "UploadPart"):
        return Unsupported, (
            f"the store does not implement what {answer.operation} asks for; if that is the checksums, {CHECKSUMS_REMEDY}; "
            f"if the condition, {CONDITIONS_REMEDY}"
        )
    return Unsupported, f"the store does not implement {answer.operation}; use one that does"


def _web_page(answer: Answer) -> _Meaning:
    if answer.status in (502, 503, 504):
        return EndpointUnreachable, "a proxy before the store does not reach it"
    if answer.status == 500:  # of the SDK's making, where success came with something else than XML
        return EndpointUnreachable, (
            "a web page answers, not an S3 store, or one in trouble; check host, port and path of the endpoint URL, and its log"
        )
    return NotAStore, "a web page answers, not an S3 store; check host, port and path of the endpoint URL"


def _denied(text: str) -> Callable[[Answer], bool]:
    pattern = re.compile(text, re.IGNORECASE)
    return lambda answer: (
        answer.status in (0, 400, 401, 403) and pattern.search(f"{answer.code} {answer.said}") is not None
    )


def _always(kind: type[StorageError], message: str) -> Callable[[Answer], _Meaning]:
    return lambda _: (kind, message)


_SPECIAL: tuple[tuple[Callable[[Answer], bool], Callable[[Answer], _Meaning]], ...] = (
    (
        _denied(r"requester.?pays|x-amz-request-payer"),
        _always(CredentialsRefused, "the bucket charges the requester; set requesterPays: true next to the address"),
    ),
    (
        _denied(r"\bKMS\b|\bkms[:.]|key management"),
        _always(
            CredentialsRefused,
            "the key that the bucket encrypts with may not be used; give these credentials kms:GenerateDataKey and "
            "kms:Decrypt on it, or name another in serverSideEncryption.kmsKeyID",
        ),
    ),
    (
        _denied(r"explicit deny"),
        _always(
            CredentialsRefused,
            "a policy denies it explicitly, so that no further right helps; look for a Deny in the policies of the bucket, "
            "the user and the organisation",
        ),
    ),
    (
        lambda answer: answer.status == 400 and "HTTPS server" in answer.said,
        _always(NotTrusted, "the endpoint speaks TLS; write https:// in the endpoint URL"),
    ),
    (
        lambda answer: answer.status == 413,
        _always(
            StorageError,
            "a proxy in front of the store limits the size of requests; raise that limit to 64 MiB or more (nginx: "
            "client_max_body_size)",
        ),
    ),
    (lambda answer: answer.status in (301, 307, 400) and "x-amz-bucket-region" in answer.headers, _region),
    (
        lambda answer: answer.status in (301, 302, 303, 307, 308) and "location" in answer.headers,
        _redirected,
    ),
    (
        # A HEAD tells no code: those that expired or were revoked are 400 there.
        lambda answer: (answer.operation, answer.code) == ("HeadObject", "400"),
        _always(
            CredentialsRefused,
            "the store gives no reason, as it does for credentials that have expired or are unknown; renew them",
        ),
    ),
    (_is_unsupported, _unsupported),
    (lambda answer: answer.is_web_page and answer.status != 429, _web_page),
)
"""What the code alone does not tell."""


def _cause(error: BotoCoreError | HTTPError) -> str:
    """The innermost cause, which names what the operating system said."""
    inner = getattr(error, "kwargs", {}).get("error")
    return " ".join(str(inner if inner is not None else error).split())
