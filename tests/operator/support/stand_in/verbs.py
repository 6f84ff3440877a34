"""What the API server does with an object that it is asked to create, replace, patch, apply or delete, and what it refuses."""

import copy
import re
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.operator.support.stand_in import fields, refusals, schema
from tests.operator.support.stand_in.fields import Keyed, Manager
from tests.operator.support.stand_in.objects import (
    OWNABLE,
    SERVERS_OWN,
    is_part,
    key_of,
    owned,
    specification,
    stamp,
    successor,
)
from tests.operator.support.stand_in.resources import BUILT_IN, DEFINITIONS, JOBS, NAMESPACES, PODS, Resource, defined
from tests.operator.support.stand_in.store import Key, Store

Plain = dict[str, Any]

AGE = timedelta(seconds=2)
"""Of an object that has just been made: nothing is launched in the second of a job's creation, which tests do not wait for."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True)
class Options:
    """How a write is asked for."""

    manager: str = "unknown"
    is_dry: bool = False
    is_strict: bool = False
    """Whether unknown fields are refused instead of dropped."""
    force: bool = False
    subresource: str = ""


@dataclass
class Verbs:
    """Writes to one store."""

    store: Store
    _schemas: dict[Resource, tuple[Plain, Keyed]] = field(default_factory=dict)

    def served(self) -> list[Resource]:
        """What objects there can be at the moment."""
        return [*BUILT_IN, *self._schemas]

    def create(self, key: Key, body: Plain, options: Options, owners: fields.Owners | None = None) -> Plain:
        """A new object; the owners of its fields are given where it is applied.

        Raises:
            Refusal: there is one of that name, it is not valid, or its namespace is not there or goes.
        """
        resource, given = key.resource, dict(body.get("metadata") or {})
        if not given.get("name") and given.get("generateName"):
            given["name"] = given["generateName"] + secrets.token_hex(3)[:5]
        key = key._replace(name=str(given.get("name") or ""))
        if key.namespace and given.get("namespace", key.namespace) != key.namespace:
            raise refusals.bad_request("the namespace of the provided object does not match the namespace sent on the request")  # fmt: skip
        if given.get("resourceVersion"):
            raise refusals.Refusal(500, "", "resourceVersion should not be set on objects to be created")
        self._namespace_takes(key)
        made = self._shaped(resource, {**body, "metadata": given}, options)
        self._check(key, made)
        if self.store.get(key) is not None:
            raise refusals.already_exists(resource, key.name)
        if resource.has_status:
            made.pop("status", None)
        kept = {name: value for name, value in given.items() if name not in SERVERS_OWN}
        made |= {"apiVersion": resource.api_version, "kind": resource.kind}
        made["metadata"] = {
            **kept, **({"namespace": key.namespace} if key.namespace else {}),
            "uid": str(uuid.uuid4()), "creationTimestamp": stamp(datetime.now(UTC) - AGE), **({"generation": 1} if resource.has_generation else {}),
        }  # fmt: skip
        if resource == PODS:
            made["status"] = {"phase": "Pending"}
        if options.is_dry:
            return made
        if owners is None:
            owners = fields.updated({}, owned(made, ""), {}, Manager(options.manager, "Update"), self._keyed(resource))
        stored = self.store.put(key, made, owners)
        if resource == DEFINITIONS:
            self._define(stored)
        return stored

    def replace(self, key: Key, body: Plain, options: Options, operation: str = "Update") -> Plain:
        """An object with other contents.

        Raises:
            Refusal: it is not there, not the one that was read, or not valid.
        """
        found = self._existing(key)
        self._is_the_one(key, found, body.get("metadata") or {})
        made = successor(found, self._shaped(key.resource, body, options), key.resource, options.subresource)
        manager, keyed = Manager(options.manager, operation, options.subresource), self._keyed(key.resource)
        parts = owned(found, options.subresource), owned(made, options.subresource)
        owners = fields.updated(*parts, self.store.owners(key), manager, keyed)
        return self._store(key, found, made, owners, options)

    def patch(self, key: Key, change: Plain, options: Options) -> Plain:
        """An object after a JSON merge patch; raises what `replace` does."""
        found = self._existing(key)
        if "resourceVersion" in (change.get("metadata") or {}):
            self._is_the_one(key, found, change["metadata"])
        return self.replace(key, fields.merged(copy.deepcopy(found), change), options)

    def apply(self, key: Key, wanted: Plain, options: Options) -> Plain:
        """An object after server-side apply, made if it is not there.

        Raises:
            Refusal: as `replace`, and a conflict over fields that somebody else owns.
        """
        found = self.store.get(key)
        if found is None and options.subresource:
            raise refusals.not_found(key.resource, key.name)
        base: Plain = found or {"metadata": {"name": key.name}}
        if found is not None:
            self._is_the_one(key, found, wanted.get("metadata") or {})
        elif (wanted.get("metadata") or {}).get("resourceVersion") or (wanted.get("metadata") or {}).get("uid"):
            raise refusals.conflict(key.resource, key.name, "it does not exist")
        manager, keyed = Manager(options.manager, "Apply", options.subresource), self._keyed(key.resource)
        # Without defaults, which nobody applies: only what is asked for is owned.
        asked = owned(wanted, options.subresource)
        try:
            parts, owners = fields.applied(
                owned(base, options.subresource), self.store.owners(key), manager, asked, keyed, force=options.force
            )
        except fields.FieldConflict as error:
            raise refusals.Refusal(409, "Conflict", str(error)) from error
        metadata = {name: value for name, value in base["metadata"].items() if name not in OWNABLE}
        metadata |= parts.pop("metadata", {})
        if found is None:
            return self.create(key, {**parts, "metadata": metadata}, options, owners)
        whole = {name: value for name, value in found.items() if is_part(name, options.subresource) is False}
        made = self._shaped(key.resource, {**whole, **parts, "metadata": metadata}, options)
        made = successor(found, made, key.resource, options.subresource)
        return self._store(key, found, made, owners, options)

    def delete(self, key: Key, asked: Plain, *, is_dry: bool = False) -> Plain:
        """The object that is deleted, or will be once its grace period is over and its finalizers are gone.

        Raises:
            Refusal: it is not there, or not the one that is meant.
        """
        found = self._existing(key)
        metadata = found["metadata"]
        for name, value in (asked.get("preconditions") or {}).items():
            if metadata[name] != value:
                why = f"Precondition failed: {name} in precondition: {value}, {name} in object meta: {metadata[name]}"
                raise refusals.conflict(key.resource, key.name, why.replace("uid", "UID"))
        policy = asked.get("propagationPolicy") or ("Orphan" if key.resource == JOBS else "Background")
        if policy == "Foreground":
            raise refusals.Refusal(501, "NotImplemented", "the stand-in deletes nothing in the foreground")
        if is_dry:
            return found
        if policy == "Orphan":
            self._orphan(metadata["uid"])
        grace = self._grace(found, asked) if key.resource == PODS else 0
        if key.resource == NAMESPACES:
            found = self._set(key, {**found, "status": {"phase": "Terminating"}})
        elif grace == 0 and not metadata.get("finalizers"):
            return self._remove(key)
        if grace >= metadata.get("deletionGracePeriodSeconds", grace + 1):
            return found
        ends = stamp(datetime.now(UTC) + timedelta(seconds=grace))
        going = {"deletionTimestamp": ends, "deletionGracePeriodSeconds": grace}
        return self._set(key, {**found, "metadata": {**found["metadata"], **going}})

    def release(self, key: Key, finalizer: str) -> None:
        """Takes a finalizer off; what only waited for that goes."""
        found = self.store.get(key)
        kept = [each for each in (found or {}).get("metadata", {}).get("finalizers") or () if each != finalizer]
        if found is None or len(kept) == len(found["metadata"].get("finalizers") or ()):
            return
        metadata = {name: value for name, value in found["metadata"].items() if name != "finalizers"}
        self._set(key, {**found, "metadata": {**metadata, **({"finalizers": kept} if kept else {})}})

    def set_status(self, key: Key, status: Plain) -> None:
        """What a controller says of an object that may be gone meanwhile."""
        if (found := self.store.get(key)) is not None and found.get("status") != status:
            self._set(key, {**found, "status": status})

    def set(self, key: Key, made: Plain) -> None:
        """What a controller makes of an object that is there."""
        self._set(key, made)

    def gone(self, key: Key) -> None:
        """Takes an object out, whatever it waited for."""
        if self.store.get(key) is not None:
            self._remove(key)

    def _store(self, key: Key, found: Plain, made: Plain, owners: fields.Owners, options: Options) -> Plain:
        """Only what differs is a new version."""
        self._check(key, made)
        resource = key.resource
        if resource.has_generation and specification(made) != specification(found):
            made["metadata"]["generation"] = found["metadata"]["generation"] + 1
        if options.is_dry or (made == found and owners == self.store.owners(key)):
            return made
        stored = self._set(key, made, owners)
        if resource == DEFINITIONS:
            self._define(stored)
        return stored

    def _set(self, key: Key, made: Plain, owners: fields.Owners | None = None) -> Plain:
        metadata = made["metadata"]
        is_over = "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds", 0) == 0
        if is_over and not metadata.get("finalizers") and key.resource != NAMESPACES:
            return self._remove(key)
        return self.store.put(key, made, self.store.owners(key) if owners is None else owners)

    def _remove(self, key: Key) -> Plain:
        found = self.store.remove(key)
        if key.resource == DEFINITIONS:
            resource = defined(found)
            for each in self.store.of(resource):
                self.store.remove(key_of(resource, each))
            self._schemas.pop(resource, None)
        return found

    def _existing(self, key: Key) -> Plain:
        found = self.store.get(key)
        if found is None:
            raise refusals.not_found(key.resource, key.name)
        return found

    @staticmethod
    def _is_the_one(key: Key, found: Plain, given: Plain) -> None:
        for name in ("resourceVersion", "uid"):
            if given.get(name) and given[name] != found["metadata"][name]:
                why = "the object has been modified; please apply your changes to the latest version and try again"
                raise refusals.conflict(key.resource, key.name, why)

    def _namespace_takes(self, key: Key) -> None:
        if not key.namespace:
            return
        namespace = self.store.get(Key(NAMESPACES, "", key.namespace))
        if namespace is None:
            raise refusals.not_found(NAMESPACES, key.namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {key.namespace} because it is being terminated"
            raise refusals.forbidden(key.resource, key.name, why)

    def _shaped(self, resource: Resource, body: Plain, options: Options) -> Plain:
        known = self._schemas.get(resource)
        if known is None:
            return copy.deepcopy(body)
        made, unknown = schema.shaped(copy.deepcopy(body), known[0])
        if unknown and options.is_strict:
            told = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise refusals.bad_request(f"strict decoding error: {told}")
        return made

    def _check(self, key: Key, made: Plain) -> None:
        found: list[str] = []
        if not _NAME.fullmatch(key.name) or len(key.name) > 253:
            found.append(f'metadata.name: Invalid value: "{key.name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \'-\' or \'.\'')  # fmt: skip
        if (known := self._schemas.get(key.resource)) is not None:
            found += schema.faults(made, known[0])
        if found:
            raise refusals.invalid(key.resource, key.name, found)

    def _keyed(self, resource: Resource) -> Keyed:
        known = self._schemas.get(resource)
        return known[1] if known is not None else {}

    def _define(self, definition: Plain) -> None:
        found = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        self._schemas[defined(definition)] = (found, schema.keyed_lists(found))
        names = definition["spec"]["names"]
        established = [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]
        key = key_of(DEFINITIONS, definition)
        self.set_status(key, {"conditions": established, "acceptedNames": names, "storedVersions": ["v1alpha1"]})

    def _orphan(self, uid: str) -> None:
        for key, found in self.store.all():
            owners = found["metadata"].get("ownerReferences") or []
            kept = [each for each in owners if each["uid"] != uid]
            if len(kept) < len(owners):
                metadata = {name: value for name, value in found["metadata"].items() if name != "ownerReferences"}
                metadata |= {"ownerReferences": kept} if kept else {}
                self._set(key, {**found, "metadata": metadata})

    @staticmethod
    def _grace(pod: Plain, asked: Plain) -> int:
        """Seconds; none where no node has it."""
        if "nodeName" not in pod["spec"]:
            return 0
        given = asked.get("gracePeriodSeconds")
        return int(pod["spec"].get("terminationGracePeriodSeconds", 30) if given is None else given)
