"""Compute resources of a container, as Kubernetes takes them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from adapter_api.base import ResourceModel
from adapter_api.kubernetes import QualifiedName, Quantity
from adapter_api.messages import refuse
from adapter_api.quantities import resource_faults

GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "habana.ai/gaudi")
MAX_PROCESSES = 64
"""Training processes in one pod."""


class Resources(ResourceModel):
    """Compute resources, with the same fields as in a container."""

    limits: Annotated[dict[QualifiedName, Quantity], Field(max_length=64)] = {}
    """Upper limits, such as cpu, memory and nvidia.com/gpu."""
    requests: Annotated[dict[QualifiedName, Quantity], Field(max_length=64)] = {}
    """Reserved amounts; by default the limits."""

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        for name, value in {**self.requests, **self.limits}.items():
            if name in GPU_RESOURCES and not (value.isdigit() and int(value) <= MAX_PROCESSES):
                raise ValueError(f"{name} {value!r}: give a whole number of GPUs, at most {MAX_PROCESSES}")
        refuse("Resources", resource_faults(self.limits, self.requests))
        return self

    @property
    def gpus(self) -> int:
        """GPUs of any vendor that one pod asks for."""
        merged = {**self.requests, **self.limits}
        return sum(int(merged.get(name, 0)) for name in GPU_RESOURCES)
