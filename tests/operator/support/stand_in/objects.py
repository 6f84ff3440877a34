"""PURE: the parts of an object: what its writers may set, what only the API server does, what is told through which path."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.operator.support.stand_in.resources import Resource
from tests.operator.support.stand_in.store import Key

Plain = dict[str, Any]

SERVERS_OWN = ("uid", "creationTimestamp", "resourceVersion", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink")  # fmt: skip
OWNABLE = ("labels", "annotations", "finalizers")
"""Of the metadata."""
_TOUCHES = ("apiVersion", "kind", "metadata", "status")
"""Parts whose changes no generation counts."""


def successor(found: Plain, made: Plain, resource: Resource, subresource: str) -> Plain:
    """What is asked for, as far as the path is for that: a status, or all but the status."""
    if subresource:
        return {**found, "metadata": dict(found["metadata"]), **present("status", made)}
    kept = {name: found["metadata"][name] for name in SERVERS_OWN if name in found["metadata"]}
    given = {name: value for name, value in (made.get("metadata") or {}).items() if name not in SERVERS_OWN}
    own = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {**given, **_identity(found), **kept},
    }
    result = {**made, **own}
    if resource.has_status:
        result.pop("status", None)
        result |= present("status", found)
    return result


def key_of(resource: Resource, found: Plain) -> Key:
    """Where an object is."""
    return Key(resource, found["metadata"].get("namespace", ""), found["metadata"]["name"])


def stamp(moment: datetime) -> str:
    """A time as objects hold it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _identity(found: Plain) -> Plain:
    return {name: found["metadata"][name] for name in ("name", "namespace") if name in found["metadata"]}


def present(name: str, found: Mapping[str, Any]) -> Plain:
    return {name: found[name]} if name in found else {}


def is_part(name: str, subresource: str) -> bool:
    """Whether a part of an object is written through the path of this subresource, or of the object itself."""
    return (name == "status") == bool(subresource)


def owned(found: Plain, subresource: str) -> Plain:
    """What its writers can own: a status, or all but that and what the API server says itself."""
    if subresource:
        return present("status", found)
    parts = {name: value for name, value in found.items() if name not in _TOUCHES}
    metadata = found.get("metadata") or {}
    written = {name: metadata[name] for name in OWNABLE if name in metadata}
    return {**parts, **({"metadata": written} if written else {})}


def specification(found: Plain) -> Plain:
    return {name: value for name, value in found.items() if name not in _TOUCHES}
