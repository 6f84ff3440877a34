"""What can go wrong with object storage: one hierarchy, each message with place, cause and remedy."""
# ruff: noqa: N818 - each name reads as the fact that it states

import errno
from typing import ClassVar

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


class NotTrusted(StorageError):
    """The other side cannot show that it is the store, or does not speak TLS as it was addressed."""

    exit_code = ExitCode.INVALID


class NotAStore(StorageError):
    """What answers is no S3 store, or not at this address."""

    exit_code = ExitCode.INVALID


class Unsupported(StorageError):
    """The store does not know what is asked of it."""

    exit_code = ExitCode.INVALID


class StorageRefused(StorageError):
    """A refusal, as those that end a run before it has begun, of an attempt that has others before it."""

    exit_code = ExitCode.REFUSED


class ObjectMissing(StorageError):
    """The object does not exist."""


class ClockSkewed(StorageError):
    """This machine's clock and the store's disagree."""


class StorageFull(StorageError):
    """The store, or the local disk, has no space left."""


class PreconditionFailed(StorageError):
    """The object has changed, or exists already; or it was written by a request whose reply was lost."""


class NotModified(PreconditionFailed):
    """The object is the one that was read before."""


class TooLarge(StorageError):
    """A document would be larger than readers accept."""


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
    """The store accepts conditional writes without honouring them, or refuses them when they hold."""

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


REFUSALS = (
    CredentialsRefused,
    BucketMissing,
    WrongRegion,
    NotTrusted,
    NotAStore,
    Unsupported,
    ConditionalWritesIgnored,
)
"""What a store, or who runs it, may take back without any change of the job."""


def disk_error(error: OSError, doing: str) -> StorageError:
    """An error of the local disk, as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"{doing}: no space left on {error.filename or 'the disk'}; free some or use a larger volume"
        )
    return StorageError(f"{doing}: {error.strerror or error} ({error.filename})")
