"""The kinds of object that the API server stand-in serves."""

from dataclasses import dataclass
from typing import Any

Plain = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    root: str
    """Where it is served: "api/v1", "apis/batch/v1"."""
    plural: str
    kind: str
    is_namespaced: bool = True
    has_status: bool = False
    """Whether its status is a subresource, which a write of the object leaves as it is, and the other way round."""
    has_generation: bool = False
    """Whether changes of its specification are counted."""

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return self.root.partition("/")[2]

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def full_name(self) -> str:
        """As messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource("api/v1", "namespaces", "Namespace", is_namespaced=False, has_status=True)
PODS = Resource("api/v1", "pods", "Pod", has_status=True)
JOBS = Resource("apis/batch/v1", "jobs", "Job", has_status=True, has_generation=True)
CONFIG_MAPS = Resource("api/v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Resource("api/v1", "serviceaccounts", "ServiceAccount")
DEFINITIONS = Resource(
    "apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition",
    is_namespaced=False, has_status=True, has_generation=True,
)  # fmt: skip
EVENTS = Resource("api/v1", "events", "Event")
NEW_EVENTS = Resource("apis/events.k8s.io/v1", "events", "Event")
"""The same objects, whose fields have other names there."""
BUILT_IN = (
    NAMESPACES, PODS, JOBS, CONFIG_MAPS, SERVICE_ACCOUNTS, DEFINITIONS, EVENTS, NEW_EVENTS,
    Resource("api/v1", "services", "Service", has_status=True),
    Resource("apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", has_generation=True),
    Resource("apis/coordination.k8s.io/v1", "leases", "Lease"),
)  # fmt: skip


def defined(definition: Plain) -> Resource:
    """What a CustomResourceDefinition of one version makes the API server serve."""
    spec = definition["spec"]
    version = spec["versions"][0]
    return Resource(
        f"apis/{spec['group']}/{version['name']}", spec["names"]["plural"], spec["names"]["kind"],
        has_status="status" in (version.get("subresources") or {}), has_generation=True,
    )  # fmt: skip
