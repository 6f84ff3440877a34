"""The status of a job: what the operator has seen, for those who watch it."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from adapter_api.base import Count, Flag, Real, ResourceModel
from adapter_api.kubernetes import ShortText
from adapter_api.progress import MAX_METRICS, MetricName


class Condition(ResourceModel):
    """One aspect of the job's state, in the form of a Kubernetes condition."""

    type: Literal[
        "Accepted", "Queued", "Running", "StorageHealthy", "AgentReachable", "Suspended", "Complete", "Failed",
        "Ready", "Reconciling", "Stalled",
    ]  # fmt: skip
    """Aspect of the state. Ready, Reconciling and Stalled follow kstatus and say whether the job matches its
    specification."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds: True, False or Unknown."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,127}$")]
    """Reason in one word, for programs."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Reason in a sentence, and what to do about it."""
    last_transition_time: AwareDatetime
    """Time at which `status` last changed."""
    observed_generation: Count | None = None
    """Generation of the specification for which the condition was determined."""


class Restarts(ResourceModel):
    """Number of restarts so far."""

    charged: Count = 0
    """Restarts that count towards restart.maxRestarts."""
    uncharged: Count = 0
    """Restarts that the cluster caused; they do not count."""
    total: Count = 0
    """Sum of charged and uncharged restarts."""


class Nodes(ResourceModel):
    """Number of pods of the current attempt, by state."""

    ready: Count = 0
    """Pods whose trainer is running."""
    active: Count = 0
    """Pods that have not ended."""
    failed: Count = 0
    """Pods that have failed."""


class ProgressStatus(ResourceModel):
    """Progress of training, as last reported."""

    step: Count = 0
    """Optimizer steps completed."""
    total_steps: Count = 0
    """Optimizer steps in total."""
    percent: Annotated[Real, Field(ge=0, le=100)] = 0.0
    """Share of the optimizer steps that is completed."""
    loss: Real | None = None
    """Loss at the last report."""
    images_per_second: Real | None = None
    """Samples per second over all processes."""
    eta_seconds: Count | None = None
    """Estimated seconds until the last step."""
    eta: ShortText | None = None
    """Estimated time until the last step, in readable form such as 1h20m."""
    metrics: Annotated[dict[MetricName, Real], Field(max_length=MAX_METRICS)] | None = None
    """Results of the newest evaluation, by name: loss on held-out samples, gain of each condition, scores of judged
    pictures."""
    notice: ShortText | None = None
    """What has changed since the checkpoint from which the attempt continued: data, libraries, device."""
    updated_at: AwareDatetime | None = None
    """Time of the trainer's report."""


class CheckpointStatus(ResourceModel):
    """The newest committed checkpoint."""

    step: Count
    """Optimizer step of the checkpoint."""
    uri: ShortText
    """Address of the checkpoint in object storage."""
    committed_at: AwareDatetime
    """Time at which the checkpoint was committed."""
    bytes: Count
    """Size of all files of the checkpoint."""
    save_seconds: Real | None = None
    """Seconds that node 0 took to write the checkpoint to its disk."""
    commit_seconds: Real | None = None
    """Seconds from the start of the upload until the checkpoint was committed."""


class Interruption(ResourceModel):
    """The end of an attempt that was followed by another, and the steps that it cost."""

    attempt: Count
    """Number of the attempt that ended."""
    reason: ShortText
    """Reason in one word."""
    at: AwareDatetime
    """Time at which the operator saw the end."""
    message: ShortText = ""
    """What was not saved or committed before the pod had to stop, and how to prevent that."""
    step: Count | None = None
    """Last step that the attempt reported; absent if it never trained."""
    resumed_step: Count | None = None
    """Step from which the next attempt continued; absent until it trains."""
    lost_steps: Count | None = None
    """Steps that have to be trained again; absent until the next attempt trains."""


class LastFailure(ResourceModel):
    """The most recent failure of an attempt."""

    reason: ShortText
    """Reason in one word."""
    node: Count | None = None
    """Index of the node that failed first."""
    exit_code: int | None = None
    """Exit code of the failed container."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Message of the failed container."""
    at: AwareDatetime
    """Time at which the operator saw the failure."""
    attempt: Count = 0
    """Number of the attempt that failed."""
    charged: Flag = True
    """Whether the failure counts towards restart.maxRestarts."""
    log_tail: Annotated[str, Field(max_length=8192)] = ""
    """Last lines of the failed container's log."""


MAX_ATTEMPT = 1_000_000
"""Of a job: half of what an epoch of storage has room for."""
MAX_INTERRUPTIONS = 10
"""Kept in the status."""
JobState = Literal[
    "Pending", "Queued", "Starting", "Running", "Suspended", "Restarting", "Complete", "Failed", "Invalid"
]  # fmt: skip


class JobStatus(ResourceModel):
    """What the operator has observed. Nothing in the status is an input to training."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Count | None = None
    """Generation of the specification that this status describes."""
    state: JobState | None = None
    """State of the job in one word, derived from the conditions; for people, not for programs."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()
    """Aspects of the job's state, each with a reason and a message that says what to do."""
    attempt: Annotated[Count, Field(le=MAX_ATTEMPT)] = 0
    """Number of the current attempt, from 1."""
    restarts: Restarts = Restarts()
    """Number of restarts so far."""
    nodes: Nodes = Nodes()
    """Number of pods of the current attempt, by state."""
    progress: ProgressStatus | None = None
    """Progress of training, as last reported."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    last_failure: LastFailure | None = None
    """The most recent failure of an attempt."""
    interruptions: Annotated[tuple[Interruption, ...], Field(max_length=MAX_INTERRUPTIONS)] = ()
    """Attempts that ended and were followed by another, newest last."""
    lost_steps: Count | None = None
    """Steps that had to be trained again, over all interruptions."""
    termination_grace_period_seconds: Annotated[Count, Field(le=86_400)] | None = None
    """Seconds that pods of the next attempt have to save and upload when they stop, derived from how long both took so
    far. Absent before the first commit, and if the specification sets it."""
    start_time: AwareDatetime | None = None
    """Time at which the first attempt was launched, or admitted by its queue."""
    completion_time: AwareDatetime | None = None
    """Time at which the job ended."""
    goodput_percent: Annotated[Real, Field(ge=0, le=100)] | None = None
    """Share of the time since the start spent on steps that did not have to be repeated."""
