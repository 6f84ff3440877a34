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
    """What one label of a node, or one of its fields, has to be."""

    key: QualifiedName
    """Label, or field, that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared."""
    values: _VALUES = ()
    """What it is compared with."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        _check_values(self.operator, self.values)
        if self.operator in {"Gt", "Lt"} and (len(self.values) != 1 or not self.values[0].lstrip("-").isdecimal()):
            raise ValueError(f"operator {self.operator} compares with one whole number; give exactly one in values")
        return self


class NodeSelectorTerm(ResourceModel):
    """Requirements that all have to be met."""

    match_expressions: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=64)] = ()
    """Of labels."""
    match_fields: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=64)] = ()
    """Of fields: metadata.name only."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for each in self.match_fields:
            if each.key != "metadata.name" or each.operator not in {"In", "NotIn"} or len(each.values) != 1:
                raise ValueError("matchFields compare metadata.name with one value, by In or NotIn")
        return self


class NodeSelector(ResourceModel):
    """Terms of which one has to be met."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=64)]
    """The terms."""


class PreferredSchedulingTerm(ResourceModel):
    """A term, and how much it is wished for."""

    weight: _Weight
    """From 1 to 100."""
    preference: NodeSelectorTerm
    """The term."""


class NodeAffinity(ResourceModel):
    """Which nodes pods run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """What nodes must be."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredSchedulingTerm, ...], Field(max_length=64)
    ] = ()
    """What they should be."""


class LabelSelectorRequirement(ResourceModel):
    """What one label has to be."""

    key: QualifiedName
    """Label that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=256)] = ()
    """What it is compared with."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        _check_values(self.operator, self.values)
        return self


class LabelSelector(ResourceModel):
    """Objects with these labels; empty: all."""

    match_labels: LabelMap = {}
    """Labels and their values."""
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=64)] = ()
    """What labels have to be besides."""


class PodAffinityTerm(ResourceModel):
    """Pods whose place counts."""

    topology_key: QualifiedName
    """Label of nodes: where its value is the same is the same place."""
    label_selector: LabelSelector | None = None
    """Which pods; absent: none."""
    namespaces: Annotated[tuple[LabelName, ...], Field(max_length=64)] = ()
    """Namespaces of those pods; by default the job's."""
    namespace_selector: LabelSelector | None = None
    """The same by labels; empty: all namespaces."""
    match_label_keys: _KEYS = ()
    """Labels whose values are taken from the pod itself."""
    mismatch_label_keys: _KEYS = ()
    """The same, and must differ."""


class WeightedPodAffinityTerm(ResourceModel):
    """Pods whose place counts, and how much."""

    weight: _Weight
    """From 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """The pods."""


class PodAffinity(ResourceModel):
    """Pods near which, or far from which, pods run."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=64)
    ] = ()
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[WeightedPodAffinityTerm, ...], Field(max_length=64)
    ] = ()
    """What should."""


class Affinity(ResourceModel):
    """Where pods run, as in a pod."""

    node_affinity: NodeAffinity | None = None
    """By nodes."""
    pod_affinity: PodAffinity | None = None
    """Near other pods."""
    pod_anti_affinity: PodAffinity | None = None
    """Far from other pods."""


def _check_values(operator: str, values: tuple[str, ...]) -> None:
    if operator in {"In", "NotIn"} and not values:
        raise ValueError(f"operator {operator} needs values; give at least one")
    if operator in {"Exists", "DoesNotExist"} and values:
        raise ValueError(f"operator {operator} compares with nothing; remove values")
