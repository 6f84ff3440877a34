"""What can go wrong with object storage: one hierarchy, each message with place, cause and remedy."""
# ruff: noqa: N818 - each name reads as the fact that it states

import errno
from typing import Any, ClassVar

from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError

from adapter_api.progress import ExitCode


class StorageError(Exception):
    """Storage could not do what was asked; the message is meant for users."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class EndpointUnreachable(StorageError):
    """No answer, or an answer that says to come back later."""


class CredentialsRefused(StorageError):
    """No credentials, wrong ones, or ones that may not do this."""

    exit_code = ExitCode.INVALID


class BucketMissing(StorageError):
    """The bucket does not exist."""

    exit_code = ExitCode.INVALID


class WrongRegion(StorageError):
    """The bucket is in another region."""

    exit_code = ExitCode.INVALID


class ObjectMissing(StorageError):
    """The object does not exist."""


class ClockSkewed(StorageError):
    """This machine's clock and the store's disagree."""


class StorageFull(StorageError):
    """The store, or the local disk, has no space left."""


class PreconditionFailed(StorageError):
    """The object has changed, or exists already; or it was written by a request whose reply was lost."""


class Damaged(StorageError):
    """What storage returned is not what was committed, or is of a kind that is never accepted."""


class IndexDamaged(Damaged):
    """The index cannot be read: a person decides what counts."""

    exit_code = ExitCode.INVALID


class IndexLost(StorageError):
    """Checkpoints are there, and no index that says whose they are and which of them count."""

    exit_code = ExitCode.INVALID


class UnreliableConnection(StorageError):
    """What arrives differs from one time to the next: nothing is known about what storage holds."""


class ContentConflict(StorageError):
    """Another object stands where one was to be created."""


class ConditionalWritesIgnored(StorageError):
    """The store accepts conditional writes without honouring them."""

    exit_code = ExitCode.INVALID


class OtherLayout(StorageError):
    """The output was written with, or without, conditional writes, and is to be used the other way."""

    exit_code = ExitCode.INVALID


class OwnerOnly(StorageError):
    """Without conditional writes only the attempt that owns an output may change its index."""

    exit_code = ExitCode.INVALID


class NothingThere(StorageError):
    """The address that the user gave holds nothing to use."""

    exit_code = ExitCode.INVALID


class Fenced(StorageError):
    """A newer attempt, or another one of the same number, owns the output: this one may change nothing any more."""

    exit_code = ExitCode.FENCED


class WaitedTooLong(StorageError):
    """Another node did not do its part in time."""


_ANSWERS: dict[type[StorageError], dict[str, str]] = {
    CredentialsRefused: {
        "InvalidAccessKeyId": "the access key is unknown to the store; check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the credentials have expired; renew them",
        "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
        "AccessDenied": "access denied; give these credentials read, write, list and delete rights on the bucket",
        "Forbidden": "access denied; check the credentials and their rights on the bucket",
        "403": "access denied; check the credentials and their rights on the bucket",
    },
    BucketMissing: {
        "NoSuchBucket": "the bucket does not exist; create it, or correct the address",
    },
    ClockSkewed: {
        "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; synchronise it (NTP)",
    },
    ObjectMissing: dict.fromkeys(("NoSuchKey", "NotFound", "404", "NoSuchUpload"), "does not exist"),
    PreconditionFailed: dict.fromkeys(
        ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "OperationAborted"),
        "changed meanwhile, or exists already",
    ),
    StorageFull: dict.fromkeys(
        ("InsufficientStorage", "507", "QuotaExceeded", "XMinioStorageFull"),
        "the store has no space left; free or add some",
    ),
    WrongRegion: dict.fromkeys(
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        "the bucket is in another region; set the location's region",
    ),
    Damaged: {
        **dict.fromkeys(
            ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
            "was damaged on its way to the store, or the file changed meanwhile",
        ),
        "InvalidRange": "is shorter than what was committed",
    },
    EndpointUnreachable: dict.fromkeys(
        ("SlowDown", "RequestTimeout", "Throttling", "TooManyRequests"), "the store is overloaded; it is tried again"
    ),
}
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


def explain(error: BotoCoreError | ClientError, place: str, endpoint: str) -> StorageError:
    """The error of ours that says what `error` means for the object or prefix `place`."""
    where = f"{place} at {endpoint}"
    if isinstance(error, ClientError):
        return _explain_answer(error, where)
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsRefused(
            f"{where}: no usable credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, _NO_ANSWER):
        return EndpointUnreachable(
            f"{where}: the endpoint cannot be reached ({_cause(error)}); check the endpoint URL, that the store is "
            "running, and the network between"
        )
    return StorageError(f"{where}: {error}")


def _explain_answer(error: ClientError, where: str) -> StorageError:
    answer: Any = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    said = str(answer.get("Error", {}).get("Message", "")) or str(error)
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    for kind, meanings in _ANSWERS.items():
        if meaning := meanings.get(code):
            return kind(f"{where}: {meaning} ({code}: {said})")
    if status >= 500:
        return EndpointUnreachable(f"{where}: the store is in trouble ({status} {code}: {said}); look at its log")
    return StorageError(f"{where}: the store refused ({status} {code}: {said})")


def _cause(error: BotoCoreError) -> str:
    """The innermost cause, which names what the operating system said."""
    inner = getattr(error, "kwargs", {}).get("error")
    return str(inner) if inner is not None else str(error)


def disk_error(error: OSError, doing: str) -> StorageError:
    """An error of the local disk, as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"{doing}: no space left on {error.filename or 'the disk'}; free some or use a larger volume"
        )
    return StorageError(f"{doing}: {error.strerror or error} ({error.filename})")
