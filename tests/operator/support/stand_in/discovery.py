"""What the API server stand-in says of the kinds that it serves: groups, their versions, and the resources of one version."""

from collections.abc import Iterable
from typing import Any

from tests.operator.support.stand_in.resources import Resource

Plain = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_STATUS_VERBS = ("get", "patch", "update")


def answer(path: str, served: Iterable[Resource], definitions: Iterable[Plain]) -> Plain | None:
    """What is at a path; None: it is nothing that tells of kinds, or of kinds that nobody serves.

    Args:
        path: Of the request.
        served: What there is.
        definitions: CustomResourceDefinitions, which say by what other names their kinds are called.
    """
    found = list(served)
    roots = list(dict.fromkeys(each.root for each in found))
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(root) for root in roots if root.startswith("apis/")]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api", _] | ["apis", _, _] if path.strip("/") in roots:
            names: dict[str, Plain] = {each["spec"]["names"]["plural"]: each["spec"]["names"] for each in definitions}
            resources = [
                shown
                for each in found
                if each.root == path.strip("/")
                for shown in _resources(each, names.get(each.plural, {}))
            ]
            version = path.strip("/").partition("/")[2]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
    return None


def _group(root: str) -> Plain:
    _, group, version = root.split("/")
    shown = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [shown], "preferredVersion": shown}


def _resources(resource: Resource, names: Plain) -> list[Plain]:
    """A kind, and its status if that is a resource by itself."""
    common: Plain = {"namespaced": resource.is_namespaced, "kind": resource.kind}
    called: Plain = {name: names[name] for name in ("shortNames", "categories") if name in names}
    singular = names.get("singular", resource.kind.lower())
    whole = {"name": resource.plural, "singularName": singular, **common, "verbs": [*VERBS], **called}
    status = {"name": f"{resource.plural}/status", "singularName": "", **common, "verbs": [*_STATUS_VERBS]}
    return [whole, *([status] if resource.has_status else [])]
