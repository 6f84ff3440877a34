"""The status of a job: what the operator has seen, for those who watch it."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from adapter_api.base import Count, Flag, Real, ResourceModel
from adapter_api.kubernetes import ShortText
from adapter_api.progress import MAX_METRICS, MetricName


class Condition(ResourceModel):
    """One aspect of the job's state, as Kubernetes' API conventions define conditions."""

    type: Literal[
        "Accepted", "Queued", "Running", "StorageHealthy", "AgentReachable", "Suspended", "Complete", "Failed",
        "Ready", "Reconciling", "Stalled",
    ]  # fmt: skip
    """Which aspect. Ready, Reconciling and Stalled say in kstatus' words how far the job is what its specification asks for."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,127}$")]
    """Why, in one word, for programs."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Why, and what to do, for people."""
    last_transition_time: AwareDatetime
    """When the status last changed."""
    observed_generation: Count | None = None
    """Generation of the specification that it was found for."""


class Restarts(ResourceModel):
    """Restarts so far."""

    charged: Count = 0
    """Those that count towards restart.maxRestarts."""
    uncharged: Count = 0
    """Those that were the cluster's doing."""
    total: Count = 0
    """Both together."""


class Nodes(ResourceModel):
    """Pods of the current attempt."""

    ready: Count = 0
    """Pods whose trainer runs."""
    active: Count = 0
    """Pods that have not ended."""
    failed: Count = 0
    """Pods that have failed."""


class ProgressStatus(ResourceModel):
    """The last progress that was read."""

    step: Count = 0
    """Optimizer steps done."""
    total_steps: Count = 0
    """Optimizer steps in all."""
    percent: Annotated[Real, Field(ge=0, le=100)] = 0.0
    """Share of the steps that is done."""
    loss: Real | None = None
    """Loss at the last report."""
    images_per_second: Real | None = None
    """Samples a second, of all processes."""
    eta_seconds: Count | None = None
    """Seconds that the remaining steps will take."""
    eta: ShortText | None = None
    """The same, as people say it."""
    metrics: Annotated[dict[MetricName, Real], Field(max_length=MAX_METRICS)] | None = None
    """Figures of the newest evaluation, by name: loss on held-out samples, what each condition gains, judged pictures."""
    notice: ShortText | None = None
    """What is not as it was when the checkpoint was made that the attempt went on from: data, libraries, device."""
    updated_at: AwareDatetime | None = None
    """When the trainer reported this."""


class CheckpointStatus(ResourceModel):
    """The newest committed checkpoint."""

    step: Count
    """Its step."""
    uri: ShortText
    """Its address."""
    committed_at: AwareDatetime
    """When it was committed."""
    bytes: Count
    """Its size."""
    save_seconds: Real | None = None
    """How long writing it took on node 0."""
    commit_seconds: Real | None = None
    """How long it took from the start of its upload until it was committed."""


class Interruption(ResourceModel):
    """The end of an attempt that another one followed, and what it cost."""

    attempt: Count
    """The attempt that ended."""
    reason: ShortText
    """Why, in one word."""
    at: AwareDatetime
    """When that was seen."""
    message: ShortText = ""
    """What was not saved or not committed in the time that the stop had, and what would help."""
    step: Count | None = None
    """Last step that was reported of it; absent if it never trained."""
    resumed_step: Count | None = None
    """Step that the next attempt went on from; absent until it trains."""
    lost_steps: Count | None = None
    """Steps that were trained and have to be trained again; absent until the next attempt trains."""


class LastFailure(ResourceModel):
    """Why the last attempt that failed did."""

    reason: ShortText
    """Why, in one word."""
    node: Count | None = None
    """Index of the node that failed first."""
    exit_code: int | None = None
    """Exit code of its container."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """What it said."""
    at: AwareDatetime
    """When it was seen."""
    attempt: Count = 0
    """The attempt that failed."""
    charged: Flag = True
    """Whether it counts towards restart.maxRestarts."""
    log_tail: Annotated[str, Field(max_length=8192)] = ""
    """The last lines that the failed container wrote."""


MAX_ATTEMPT = 1_000_000
"""Of a job: half of what an epoch of storage has room for."""
MAX_INTERRUPTIONS = 10
"""Kept in the status."""
JobState = Literal[
    "Pending", "Queued", "Starting", "Running", "Suspended", "Restarting", "Complete", "Failed", "Invalid"
]  # fmt: skip


class JobStatus(ResourceModel):
    """What the operator has seen; nothing here is an input to training."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Count | None = None
    """The generation of the specification that this status answers."""
    state: JobState | None = None
    """What the job is doing, in one word, derived from the conditions: for people to read, not for programs."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()
    """Aspects of the state, each with a reason and a message that says what to do."""
    attempt: Annotated[Count, Field(le=MAX_ATTEMPT)] = 0
    """Number of the current attempt."""
    restarts: Restarts = Restarts()
    """Restarts so far."""
    nodes: Nodes = Nodes()
    """Pods of the current attempt."""
    progress: ProgressStatus | None = None
    """How far training is."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    last_failure: LastFailure | None = None
    """Why the last attempt that failed did."""
    interruptions: Annotated[tuple[Interruption, ...], Field(max_length=MAX_INTERRUPTIONS)] = ()
    """Attempts that were followed by another, the newest last."""
    lost_steps: Count | None = None
    """Steps that all interruptions so far have cost."""
    termination_grace_period_seconds: Annotated[Count, Field(le=86_400)] | None = None
    """Seconds that pods of the next attempt get to save and upload when they are told to stop: derived from how long both
    took. Absent before the first commit, and if the specification sets it."""
    start_time: AwareDatetime | None = None
    """When the first attempt was launched or, if the job has a queue, admitted by that."""
    completion_time: AwareDatetime | None = None
    """When the job ended."""
    goodput_percent: Annotated[Real, Field(ge=0, le=100)] | None = None
    """Share of the time since the start that went into steps that stand."""
