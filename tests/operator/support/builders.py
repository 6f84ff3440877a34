"""Jobs and pods for tests of pure parts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from adapter_api.job import AdapterTrainingJob
from adapter_api.progress import Ending
from adapter_api.status import Condition, JobStatus
from adapter_operator.observe.observed import BatchJob, ContainerEnd, Observed, ObservedPod
from tests.trainer.support import tiny

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
KEY = ("team", "digits")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job(spec: dict[str, Any] | None = None, status: JobStatus | None = None) -> AdapterTrainingJob:
    """A valid job of two nodes, unless `spec` says otherwise."""
    plain = {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": "digits", "namespace": "team", "uid": "uid-1", "generation": 1},
        "spec": {
            "nodes": 2,
            "training": tiny.settings(),
            "output": {"s3": {"uri": "s3://checkpoints/digits"}},
            "restart": {"maxRestarts": 2, "backoffSeconds": 10},
            **(spec or {}),
        },
    }
    made = AdapterTrainingJob.model_validate(plain)
    return made if status is None else made.model_copy(update={"status": status})


def status(state: str = "Running", attempt: int = 1, **changes: Any) -> JobStatus:
    """The status of a job in an attempt, as the operator writes it."""
    condition = Condition(
        type="Running",
        status="True" if state == "Running" else "False",
        reason="Training" if state == "Running" else state,
        last_transition_time=NOW,
    )
    return JobStatus.model_validate({"state": state, "attempt": attempt, "startTime": NOW, **changes}).model_copy(
        update={"conditions": (condition,)}
    )


def pod(index: int = 0, attempt: int = 1, **changes: Any) -> ObservedPod:
    """A pod that trains."""
    base = ObservedPod(
        name=f"digits-{attempt}-{index}-abcde", uid=f"{attempt}-{index}", job=KEY, attempt=attempt, index=index, nodes=2,
        batch_job_uid=f"job-{attempt}", phase="Running", is_running=True, ip="10.0.0.1",
    )  # fmt: skip
    return replace(base, **changes)


def failed(index: int = 0, attempt: int = 1, *, code: int = 1, reason: str = "Error", message: str = "", at: float = 0, **changes: Any) -> ObservedPod:  # fmt: skip
    """A pod whose trainer ended otherwise than well."""
    end = ContainerEnd(code, reason, message, after(at))
    return pod(index, attempt, phase="Failed", is_running=False, trainer=end, **changes)


def said(reason: str, code: int = 1, message: str = "because") -> str:
    """A termination message of the agent."""
    return Ending(exit_code=code, reason=reason, message=message, step=7).model_dump_json()


def observed(*pods: ObservedPod, attempts: tuple[int, ...] = (1,), **changes: Any) -> Observed:
    jobs = {attempt: BatchJob(f"job-{attempt}") for attempt in attempts}
    return Observed(pods=pods, batch_jobs=jobs, **changes)


def raw_job(version: int, uid: str = "u1", **changes: Any) -> dict[str, Any]:
    """A job as the API server gives it."""
    metadata = {
        "namespace": KEY[0], "name": KEY[1], "uid": uid, "resourceVersion": str(version), "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    return {"metadata": metadata, "spec": {"nodes": 2}, "status": {"attempt": version}, **changes}


def raw_pod(name: str = "p", uid: str = "p1", attempt: str = "1", **status: Any) -> dict[str, Any]:
    """What the Job controller made of our template: node 0 of 2."""
    owner = {"kind": "Job", "name": f"{KEY[1]}-{attempt}", "uid": "j1", "controller": True}
    metadata = {
        "namespace": KEY[0], "name": f"{owner['name']}-0-{name}", "uid": uid, "ownerReferences": [owner],
        "labels": {"adaptertraining.dev/job": KEY[1]},
    }  # fmt: skip
    trainer = {"name": "trainer", "command": ["python", "-m", "torch.distributed.run", "--nnodes=2"]}
    return {"metadata": metadata, "spec": {"containers": [trainer]}, "status": {"phase": "Running", **status}}
