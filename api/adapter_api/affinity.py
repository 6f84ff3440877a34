"""Affinity as pods have it: the fields of Kubernetes' API, closed, so that a mistyped one is said.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Affinity; a test compares the fields with
those of the Kubernetes client.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import PositiveCount, ResourceModel
from adapter_api.kubernetes import LabelMap, LabelName, LabelValue, QualifiedName

_VALUES = Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=256)]
_KEYS = Annotated[tuple[QualifiedName, ...], Field(max_length=64)]
_Weight = Annotated[PositiveCount, Field(le=100)]


class NodeSelectorRequirement(ResourceModel):
    """A condition on one label or one field of a node."""

    key: QualifiedName
    """Label or field of the node that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the value is compared with `values`."""
    values: _VALUES = ()
    """Values to compare with. Empty for Exists and DoesNotExist; one integer for Gt and Lt."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        _check_values(self.operator, self.values)
        if self.operator in {"Gt", "Lt"} and (len(self.values) != 1 or not self.values[0].lstrip("-").isdecimal()):
            raise ValueError(f"operator {self.operator} compares with one whole number; give exactly one in values")
        return self


class NodeSelectorTerm(ResourceModel):
    """A list of requirements; a node matches if it meets all of them."""

    match_expressions: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=64)] = ()
    """Requirements on the node's labels."""
    match_fields: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=64)] = ()
    """Requirements on the node's fields; only metadata.name is supported."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for each in self.match_fields:
            if each.key != "metadata.name" or each.operator not in {"In", "NotIn"} or len(each.values) != 1:
                raise ValueError("matchFields compare metadata.name with one value, by In or NotIn")
        return self


class NodeSelector(ResourceModel):
    """A list of terms; a node matches if it meets at least one of them."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=64)]
    """Terms, of which a node must meet at least one."""


class PreferredSchedulingTerm(ResourceModel):
    """A node selector term and its weight."""

    weight: _Weight
    """Weight of the preference, from 1 to 100."""
    preference: NodeSelectorTerm
    """Term that a preferred node meets."""


class NodeAffinity(ResourceModel):
    """Which nodes pods run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Terms that a node must meet."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredSchedulingTerm, ...], Field(max_length=64)
    ] = ()
    """Terms that the scheduler prefers, with weights."""


class LabelSelectorRequirement(ResourceModel):
    """A condition on one label of an object."""

    key: QualifiedName
    """Label that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the value is compared with `values`."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=256)] = ()
    """Values to compare with; empty for Exists and DoesNotExist."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        _check_values(self.operator, self.values)
        return self


class LabelSelector(ResourceModel):
    """Selects objects by label; an empty selector selects all."""

    match_labels: LabelMap = {}
    """Labels that an object must have, with their values."""
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=64)] = ()
    """Further requirements on the object's labels."""


class PodAffinityTerm(ResourceModel):
    """Selects pods whose location attracts or repels the job's pods."""

    topology_key: QualifiedName
    """Node label that defines a location: nodes with the same value are in the same location."""
    label_selector: LabelSelector | None = None
    """Pods that are selected; if absent, none are."""
    namespaces: Annotated[tuple[LabelName, ...], Field(max_length=64)] = ()
    """Namespaces of the selected pods; by default the job's namespace."""
    namespace_selector: LabelSelector | None = None
    """Selects namespaces by label, in addition to `namespaces`; an empty selector selects all."""
    match_label_keys: _KEYS = ()
    """Label keys: a selected pod must have the same values as the job's own pod."""
    mismatch_label_keys: _KEYS = ()
    """Label keys: a selected pod must have other values than the job's own pod."""


class WeightedPodAffinityTerm(ResourceModel):
    """A pod affinity term and its weight."""

    weight: _Weight
    """Weight of the preference, from 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """Pods whose location counts."""


class PodAffinity(ResourceModel):
    """Pods that the job's pods run near, or away from."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=64)
    ] = ()
    """Terms that must be met."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[WeightedPodAffinityTerm, ...], Field(max_length=64)
    ] = ()
    """Terms that the scheduler prefers, with weights."""


class Affinity(ResourceModel):
    """Affinity rules, with the same fields as in a pod."""

    node_affinity: NodeAffinity | None = None
    """Rules about the nodes that pods run on."""
    pod_affinity: PodAffinity | None = None
    """Pods that the job's pods run near."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods that the job's pods keep away from."""


def _check_values(operator: str, values: tuple[str, ...]) -> None:
    if operator in {"In", "NotIn"} and not values:
        raise ValueError(f"operator {operator} needs values; give at least one")
    if operator in {"Exists", "DoesNotExist"} and values:
        raise ValueError(f"operator {operator} compares with nothing; remove values")
