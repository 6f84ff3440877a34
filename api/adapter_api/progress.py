"""What a running or ended trainer reports, as files in its output folder, which the agent serves and the rest reads."""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from adapter_api.base import Count, NonNegativeReal, PositiveCount, Real, ResourceModel

MAX_PROGRESS_BYTES = 64 * 1024
"""A reader takes no more than this from an agent."""

MAX_NOTICE = 2048
MAX_METRICS = 64
"""An adapter gives one; a reader keeps no more."""
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$")]


class ExitCode(IntEnum):
    """How trainer, agent and command line end. Values below 64 are conventional; 75 is sysexits.h's EX_TEMPFAIL."""

    COMPLETE = 0
    FAILED = 1
    INVALID = 2
    """The user has to change something: retrying cannot help."""
    FENCED = 74
    """A newer attempt owns the output."""
    REFUSED = 77
    """Storage refuses what it allowed an attempt before: when that is mended, running again continues. sysexits.h's EX_NOPERM."""
    STOPPED = 75
    """Asked to stop, and saved if there was time for it: running again continues."""
    INTERRUPTED = 130


Reason = Literal[
    "Complete", "Stopped", "InvalidConfig", "InvalidData", "IncompatibleCheckpoint", "NonFiniteLoss", "OutOfMemory",
    "DiskFull", "CommunicationFailed", "Failed",
]  # fmt: skip
"""Why a trainer ended, in one word."""
USERS_REASONS = frozenset({"InvalidConfig", "InvalidData", "IncompatibleCheckpoint", "InvalidConfiguration"})
"""Reasons that only the user can change something about; the last one is the agent's."""
FENCED_REASON = "Fenced"
"""A newer attempt owns the output."""


def is_users(reason: str, exit_code: int) -> bool:
    """Whether the user has to change something before another attempt can go further."""
    return reason in USERS_REASONS or exit_code == ExitCode.INVALID


def ends_for_good(reason: str, exit_code: int) -> bool:
    """Whether another attempt would end in the same way."""
    return is_users(reason, exit_code) or reason == FENCED_REASON or exit_code == ExitCode.FENCED


class CheckpointMark(ResourceModel):
    """The newest checkpoint that an agent knows to be committed."""

    step: Count
    uri: Annotated[str, Field(max_length=4096)]
    committed_at: AwareDatetime
    bytes: Count


class Progress(ResourceModel):
    """Progress of a run; the trainer writes it with every report, and the agent adds to it."""

    phase: Literal["preparing", "encoding", "training", "evaluating", "saving", "sampling", "ended"] = "preparing"
    step: Count = 0
    total_steps: Count = 0
    epoch: Count = 0
    encoded: Count | None = None
    """Pictures and captions in the cache so far, while it is built."""
    loss: Real | None = None
    images_per_second: NonNegativeReal | None = None
    eta_seconds: Count | None = None
    data_wait_percent: Annotated[Real, Field(ge=0, le=100)] | None = None
    """Share of the time since the last report spent waiting for data."""
    updated_at: AwareDatetime
    world_size: PositiveCount = 1
    resumed_step: Count | None = None
    """Step from which this start of the trainer continued; 0 for a new run, absent until it is known."""
    saved_step: Count | None = None
    """Step of the newest complete local checkpoint."""
    save_seconds: NonNegativeReal | None = None
    """Seconds from the end of that step until the local checkpoint was complete."""
    commit_seconds: NonNegativeReal | None = None
    """Seconds from the start of the newest checkpoint's upload until all nodes' files were committed."""
    upload_bytes_per_second: NonNegativeReal | None = None
    """Speed at which this node uploaded its last checkpoint."""
    pending_bytes: Count | None = None
    """Bytes of this node's current checkpoint that are not sent yet."""
    checkpoint: CheckpointMark | None = None
    metrics: Annotated[dict[MetricName, Real], Field(max_length=MAX_METRICS)] = {}
    """Results of the newest evaluation, by name."""
    notice: Annotated[str, Field(max_length=MAX_NOTICE)] | None = None
    """What has changed since the checkpoint from which this start continued: data, libraries, device."""
    upload_error: Annotated[str, Field(max_length=2048)] | None = None
    """Why the current upload has not succeeded yet; training continues meanwhile."""
    restore_warning: Annotated[str, Field(max_length=2048)] | None = None
    """Checkpoints that could not be used when this attempt began, and what is wrong with them."""


class Outcome(ResourceModel):
    """How a trainer ended; the trainer writes it last."""

    exit_code: int
    reason: Reason
    message: Annotated[str, Field(max_length=8192)] = ""
    step: Count = 0
    rank: Count = 0
    at: AwareDatetime


class Ending(ResourceModel):
    """How training ended in a pod: the termination message of its trainer container."""

    exit_code: int
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]{1,64}$")]
    message: Annotated[str, Field(max_length=2048)] = ""
    step: Count = 0
    rank: Count | None = None
    checkpoint: CheckpointMark | None = None
    """Newest checkpoint that this node knows to be committed."""
