"""How pods spread over zones, racks or nodes: the fields of Kubernetes' API, closed, so that a mistyped one is named.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/; a test compares the fields with
those of the Kubernetes client.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.affinity import LabelSelector
from adapter_api.base import PositiveCount, ResourceModel
from adapter_api.kubernetes import QualifiedName

_Small = Annotated[PositiveCount, Field(le=2**31 - 1)]


class TopologySpreadConstraint(ResourceModel):
    """A limit on how unevenly pods spread over the values of a node label."""

    max_skew: _Small
    """Largest difference in the number of pods between two values of the label."""
    topology_key: QualifiedName
    """Node label whose values are the places that pods spread over, such as topology.kubernetes.io/zone."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """DoNotSchedule: a pod that would spread worse waits. ScheduleAnyway: it is placed as well as possible."""
    label_selector: LabelSelector | None = None
    """Pods that are counted; by default the pods of the same attempt of this job."""
    min_domains: _Small | None = None
    """Least number of places to spread over; with DoNotSchedule only."""
    match_label_keys: Annotated[tuple[QualifiedName, ...], Field(max_length=64)] = ()
    """Label keys: only pods with the same values as the job's own pod are counted. Needs labelSelector."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether only nodes that nodeSelector and affinity allow are counted; by default Honor."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether only nodes whose taints are tolerated are counted; by default Ignore."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.min_domains is not None and self.when_unsatisfiable != "DoNotSchedule":
            raise ValueError(
                "minDomains counts with whenUnsatisfiable: DoNotSchedule only; set that, or remove minDomains"
            )
        if self.match_label_keys and self.label_selector is None:
            raise ValueError("matchLabelKeys needs labelSelector; add it, or remove matchLabelKeys")
        selected = self.label_selector
        named = set() if selected is None else {*selected.match_labels, *(e.key for e in selected.match_expressions)}
        if both := sorted(named & set(self.match_label_keys)):
            raise ValueError(f"{both[0]} is in both matchLabelKeys and labelSelector; remove it from one of them")
        return self
