"""What the operator counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

registry = CollectorRegistry()

jobs = Gauge("adapter_training_jobs", "Jobs by state", ["state"], registry=registry)
reconcile_seconds = Histogram(
    "adapter_operator_reconcile_seconds", "Time to reconcile one job", registry=registry,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
queue_depth = Gauge("adapter_operator_queue_depth", "Jobs that wait to be reconciled", registry=registry)
queue_age = Gauge("adapter_operator_queue_age_seconds", "How long the first of them has waited", registry=registry)
restarts = Counter("adapter_operator_restarts", "Attempts that were followed by another", ["reason"], registry=registry)
requests = Counter(
    "adapter_operator_api_requests", "Requests to the API server", ["verb", "resource"], registry=registry
)
errors = Counter("adapter_operator_api_errors", "Requests that failed", ["verb", "code"], registry=registry)
is_leader = Gauge("adapter_operator_is_leader", "1 while this process holds the Lease", registry=registry)
watch_age = Gauge(
    "adapter_operator_watch_age_seconds",
    "Pod: time since the API server was last heard. AdapterTrainingJob: since a list showed what the watch has not told",
    ["resource"], registry=registry,
)  # fmt: skip
