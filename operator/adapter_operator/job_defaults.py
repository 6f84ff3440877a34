"""PURE: what the operator fills in where a job says nothing: the administrator's side of what a job may ask for."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from adapter_api.base import ResourceModel
from adapter_api.job import AdapterTrainingJob
from adapter_api.kubernetes import ObjectName
from adapter_api.pod import CA_VARIABLES, CABundle, EnvVar, Pod, PodSecurityContext, Scheduling
from adapter_api.quantities import is_extended
from adapter_api.resources import Resources
from adapter_api.topology_spread import TopologySpreadConstraint

USER = 65_532
"""Of the images: `adapter` in their /etc/passwd."""


class JobDefaults(ResourceModel):
    """The chart's value `jobs`; each field is that of a job."""

    resources: Resources = Resources()
    """Of the trainer, by resource: one that a job states, as request or limit, is the job's alone."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Of all three containers; a job's own variable of the same name wins."""
    ca_bundle: CABundle | None = None
    runtime_class_name: ObjectName | None = None
    priority_class_name: ObjectName | None = None
    security_context: PodSecurityContext = PodSecurityContext(run_as_user=USER, run_as_group=USER, fs_group=USER)
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _of_any_job(self) -> Self:
        for name in {**self.resources.requests, **self.resources.limits}:
            if is_extended(name):
                raise ValueError(f"resources: {name} is counted by a job's own spec.resources; remove it here")
        # A job's variables are held to the same rules.
        Pod(common_env=self.env, ca_bundle=self.ca_bundle)
        Scheduling(topology_spread_constraints=self.topology_spread_constraints)
        return self


def with_defaults(job: AdapterTrainingJob, defaults: JobDefaults) -> AdapterTrainingJob:
    """The job, with what it leaves open filled in."""
    spec = job.spec
    return job.model_copy(
        update={
            "spec": spec.model_copy(
                update={
                    "resources": _resources(spec.resources, defaults.resources),
                    "pod": _pod(spec.pod, defaults),
                    "scheduling": _scheduling(spec.scheduling, defaults),
                }
            )
        }
    )


def _resources(given: Resources, defaults: Resources) -> Resources:
    stated = {*given.requests, *given.limits}

    def filled(own: dict[str, str], default: dict[str, str]) -> dict[str, str]:
        return {**own, **{name: value for name, value in default.items() if name not in stated}}

    return Resources(limits=filled(given.limits, defaults.limits), requests=filled(given.requests, defaults.requests))


def _pod(given: Pod, defaults: JobDefaults) -> Pod:
    named = {variable.name for variable in (*given.env, *given.common_env)}
    if given.ca_bundle is not None:
        named.update(CA_VARIABLES)
    return given.model_copy(
        update={
            "common_env": (*(each for each in defaults.env if each.name not in named), *given.common_env),
            "ca_bundle": given.ca_bundle or defaults.ca_bundle,
            "runtime_class_name": given.runtime_class_name or defaults.runtime_class_name,
            "security_context": given.security_context or defaults.security_context,
        }
    )


def _scheduling(given: Scheduling, defaults: JobDefaults) -> Scheduling:
    return given.model_copy(
        update={
            "priority_class_name": given.priority_class_name or defaults.priority_class_name,
            "topology_spread_constraints": given.topology_spread_constraints or defaults.topology_spread_constraints,
        }
    )
