"""Objects by kind, namespace and name, and every change of them under a version of its own, as etcd keeps them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.operator.support.stand_in.fields import Owners
from tests.operator.support.stand_in.resources import Resource

Plain = dict[str, Any]
HISTORY = 20_000
"""Changes that are remembered for watches."""


class Key(NamedTuple):
    """Where an object is; `namespace` is empty if it is in none."""

    resource: Resource
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """One object that was made, changed or removed."""

    version: int
    key: Key
    before: Plain | None
    after: Plain | None

    @property
    def object(self) -> Plain:
        """As it is after the change; a removed one as it was, with the version of its removal."""
        return self.after if self.after is not None else versioned(self.before or {}, self.version)


@dataclass
class Store:
    """What is stored is never changed in place: whoever has read an object may keep it.

    Used by one thread only.
    """

    version: int = 1
    """Of the last change."""
    _objects: dict[Key, Plain] = field(default_factory=dict)
    _owners: dict[Key, Owners] = field(default_factory=dict)
    _changes: list[Change] = field(default_factory=list)
    _forgotten: int = 1
    """Version of the last change that is not remembered."""
    _told: list[Callable[[], None]] = field(default_factory=list)

    def get(self, key: Key) -> Plain | None:
        """An object, or None."""
        return self._objects.get(key)

    def owners(self, key: Key) -> Owners:
        """Who set which of its fields."""
        return self._owners.get(key, {})

    def of(self, resource: Resource, namespace: str = "") -> list[Plain]:
        """All objects of a kind, of one namespace or of all, by namespace and name."""
        found = [
            key for key in self._objects if key.resource == resource and (not namespace or key.namespace == namespace)
        ]
        return [self._objects[key] for key in sorted(found, key=lambda key: key[1:])]

    def all(self) -> list[tuple[Key, Plain]]:
        """Everything there is."""
        return list(self._objects.items())

    def has_uid(self, uid: str) -> bool:
        """Whether there is an object of this identity."""
        return any(each["metadata"]["uid"] == uid for each in self._objects.values())

    def put(self, key: Key, made: Plain, owners: Owners) -> Plain:
        """Stores an object under the next version, and returns it with that."""
        before = self._objects.get(key)
        after = versioned(made, self.version + 1)
        self._objects[key], self._owners[key] = after, owners
        self._note(key, before, after)
        return after

    def remove(self, key: Key) -> Plain:
        """Takes an object out, and returns it as it was."""
        before = self._objects.pop(key)
        self._owners.pop(key, None)
        self._note(key, before, None)
        return before

    def since(self, version: int) -> list[Change] | None:
        """All changes after a version; None if not all of them are remembered."""
        return None if version < self._forgotten else self._changes[version - self._forgotten :]

    def forget(self) -> None:
        """Forgets all changes so far, as etcd does when it is compacted."""
        self._changes.clear()
        self._forgotten = self.version

    def tell(self, called: Callable[[], None]) -> Callable[[], None]:
        """Has `called` called after each change; what is returned ends that."""
        self._told.append(called)
        return lambda: self._told.remove(called)

    def _note(self, key: Key, before: Plain | None, after: Plain | None) -> None:
        self.version += 1
        self._changes.append(Change(self.version, key, before, after))
        if len(self._changes) > 2 * HISTORY:
            del self._changes[:HISTORY]
            self._forgotten += HISTORY
        for called in list(self._told):
            called()


def versioned(found: Plain, version: int) -> Plain:
    """The object with a resourceVersion."""
    return {**found, "metadata": {**found["metadata"], "resourceVersion": str(version)}}
