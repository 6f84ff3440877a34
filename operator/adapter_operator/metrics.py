"""What the operator counts, for Prometheus: under the names of controller-runtime and client-go where they have one."""

from types import SimpleNamespace

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

CONTROLLER = "adaptertrainingjob"
"""Label of what controller-runtime counts for each controller, and the name of its queue."""
NO_ANSWER = "<error>"
"""The code of a request that got no answer, as client-go writes it."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

registry = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)

jobs = Gauge("adapter_training_jobs", "Jobs by namespace and state", ["namespace", "state"], registry=registry)
commit_age = Gauge(
    "adapter_training_newest_commit_age_seconds",
    "Of a namespace's running jobs, the one that has gone longest without a commit: seconds since its newest, or its start",
    ["namespace"], registry=registry,
)  # fmt: skip
goodput = Gauge(
    "adapter_training_goodput_ratio",
    "Share of the time of a namespace's running jobs spent on steps that did not have to be repeated: the mean",
    ["namespace"], registry=registry,
)  # fmt: skip
lost_steps = Counter(
    "adapter_training_lost_steps",
    "Steps that were trained again after an interruption",
    ["namespace"], registry=registry,
)  # fmt: skip
reconcile_seconds = Histogram(
    "controller_runtime_reconcile_time_seconds", "Time to reconcile one job", ["controller"], registry=registry,
    buckets=_SECONDS,
).labels(CONTROLLER)  # fmt: skip
_reconciles = Counter(
    "controller_runtime_reconcile", "Reconciliations by how they ended", ["controller", "result"], registry=registry
)
_queue = ["name", "controller"]
queue_depth = Gauge("workqueue_depth", "Jobs that wait to be reconciled", _queue, registry=registry).labels(
    CONTROLLER, CONTROLLER
)
queue_adds = Counter("workqueue_adds", "Jobs that were put into the queue", _queue, registry=registry).labels(
    CONTROLLER, CONTROLLER
)
queue_retries = Counter("workqueue_retries", "Jobs that come again after a failure", _queue, registry=registry).labels(
    CONTROLLER, CONTROLLER
)
queue_seconds = Histogram(
    "workqueue_queue_duration_seconds", "How long a job was ready before a worker took it", _queue, registry=registry,
    buckets=_SECONDS,
).labels(CONTROLLER, CONTROLLER)  # fmt: skip
queue_age = Gauge("adapter_operator_queue_age_seconds", "How long the first of them has waited", registry=registry)
unreadable = Counter(
    "adapter_operator_unreadable_objects", "Objects of lists and watches that could not be read", registry=registry
)
restarts = Counter(
    "adapter_operator_restarts",
    "Attempts that were followed by another",
    ["namespace", "reason"], registry=registry,
)  # fmt: skip
_requests = Counter(
    "rest_client_requests",
    "Requests to the API server, kopf's among them",
    ["code", "host", "method"],
    registry=registry,
)
requests = Counter(
    "adapter_operator_api_requests",
    "Requests to the API server but for kopf's",
    ["verb", "resource"],
    registry=registry,
)
is_leader = Gauge("leader_election_master_status", "1 while this process holds the Lease", ["name"], registry=registry)
watch_age = Gauge(
    "adapter_operator_watch_age_seconds",
    "Pod: time since the API server was last heard. AdapterTrainingJob: since a list showed what the watch has not reported",
    ["resource"], registry=registry,
)  # fmt: skip


def reconciled(result: str) -> None:
    """A reconciliation has ended: success, requeue_after, or error."""
    _reconciles.labels(CONTROLLER, result).inc()


def counted() -> aiohttp.TraceConfig:
    """Counts the requests of a session, whoever makes them."""

    async def answered(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        _requests.labels(str(end.response.status), end.url.authority, end.method).inc()

    async def broke(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, end: aiohttp.TraceRequestExceptionParams
    ) -> None:
        _requests.labels(NO_ANSWER, end.url.authority, end.method).inc()

    config = aiohttp.TraceConfig()
    config.on_request_end.append(answered)
    config.on_request_exception.append(broke)
    return config
