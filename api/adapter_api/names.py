"""PURE: labels and container names by which the operator marks what belongs to a job, and others find it."""

from adapter_api.job import GROUP

JOB_LABEL = f"{GROUP}/job"
ATTEMPT_LABEL = f"{GROUP}/attempt"
NODES_LABEL = f"{GROUP}/nodes"
"""How many nodes an attempt was launched with."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Kubernetes' own: the index of a node."""

RESTORE, SYNC, TRAINER = "restore", "sync", "trainer"
"""Containers of a pod."""
