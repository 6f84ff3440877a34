"""PURE: what an attempt's pods are made from, as a digest by which a change of it is known."""

import hashlib
import json

from adapter_api.job import AdapterTrainingJob

_OF_PODS = {
    "image", "nodes", "procs_per_node", "resources", "agent_resources", "data", "models", "output", "resume_from", "scheduling", "pod",
    "termination_grace_period_seconds",
}  # fmt: skip
"""Fields that pods are made from. `training` cannot change."""


def specification(job: AdapterTrainingJob) -> str:
    """A digest of all that pods are made from and that can be changed, the same in every version that knows the fields."""
    fields = job.spec.model_dump(mode="json", include=_OF_PODS, exclude_defaults=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]
