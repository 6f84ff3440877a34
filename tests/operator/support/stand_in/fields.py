"""PURE: patches of objects, and who owns which field: JSON merge patch, and server-side apply.

An object is taken apart into leaves: path -> value. Maps are gone into, and lists whose items have a key of their own
(`x-kubernetes-list-type: map`); every other list is one value. Sources: RFC 7396, and
https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

Plain = dict[str, Any]


class ItemKey(NamedTuple):
    """A step of a path that leads to an item of a list."""

    field: str
    value: Any


Path = tuple[str | ItemKey, ...]
Leaves = dict[Path, Any]
Keyed = Mapping[tuple[str, ...], str]
"""Where lists are whose items have a key -> the name of that key's field."""


class Manager(NamedTuple):
    """Who writes, and how: these own fields apart from each other."""

    name: str
    operation: str
    """Apply or Update."""
    subresource: str = ""


Owners = dict[Manager, frozenset[Path]]


class FieldConflict(Exception):  # noqa: N818 - it reads as the fact that it states
    """Fields that somebody else owns have other values, and nobody said to take them."""


def merged(found: Any, patch: Any) -> Any:
    """A JSON merge patch, done."""
    if not isinstance(patch, dict):
        return patch
    result = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def leaves(found: Any, keyed: Keyed, path: Path = ()) -> Leaves:
    """Path -> value of all that an object says. A map or keyed list that is empty is a leaf of its own."""
    parts: list[tuple[str | ItemKey, Any]] = []
    if isinstance(found, dict):
        parts = list(found.items())
    elif isinstance(found, list) and (key := keyed.get(_fields(path))) is not None:
        parts = [(ItemKey(key, item[key]), item) for item in found]
    if not parts:
        return {path: found}
    return {way: value for step, inner in parts for way, value in leaves(inner, keyed, (*path, step)).items()}


def assembled(found: Leaves) -> Plain:
    """The object that has these leaves: the reverse of `leaves`."""
    root: Plain = {}
    for path, value in found.items():
        if not path:
            continue
        place: Any = root
        for step, following in zip(path, (*path[1:], None), strict=True):
            inner = copy.copy(value) if following is None else [] if isinstance(following, ItemKey) else {}
            place = _at(place, step, inner)
    return root


def applied(found: Plain, owners: Owners, manager: Manager, wanted: Plain, keyed: Keyed, *, force: bool) -> tuple[Plain, Owners]:  # fmt: skip
    """Server-side apply: the object afterwards, and who owns its fields then.

    What the manager has applied before and applies no longer goes, unless somebody else owns it, too.

    Raises:
        FieldConflict: without `force`.
    """
    before, new = leaves(found, keyed), leaves(wanted, keyed)
    others = {each: paths for each, paths in owners.items() if each != manager}
    taken = {path for path, value in new.items() if before.get(path, value) != value}
    conflicts = {each: paths & taken for each, paths in others.items() if paths & taken}
    if conflicts and not force:
        names = ", ".join(f'"{each.name}"' for each in conflicts)
        raise FieldConflict(f"Apply failed with {len(conflicts)} conflict: conflicts with {names}")
    given_up = owners.get(manager, frozenset()) - new.keys() - frozenset().union(*others.values())
    kept = {
        path: value
        for path, value in before.items()
        if path not in given_up and path not in new and not _is_within(path, new) and not _holds(path, new)
    }
    rest = {each: left for each, paths in others.items() if (left := paths - taken)}
    return assembled({**new, **kept}), {**rest, manager: frozenset(new)}


def updated(before: Plain, after: Plain, owners: Owners, manager: Manager, keyed: Keyed) -> Owners:
    """Who owns the fields after a write that is no apply: what it changed is the writer's."""
    old, new = leaves(before, keyed), leaves(after, keyed)
    changed = frozenset(path for path, value in new.items() if path not in old or old[path] != value)
    touched = changed | (old.keys() - new.keys())
    if not touched:
        return owners
    result = {each: left for each, paths in owners.items() if (left := paths - touched)}
    return {**result, manager: result.get(manager, frozenset()) | changed} if changed else result


def _fields(path: Path) -> tuple[str, ...]:
    return tuple(step for step in path if isinstance(step, str))


def _is_within(path: Path, new: Leaves) -> bool:
    """Whether it lies below what is now one value."""
    return any(new.get(path[:length], {}) not in ({}, []) for length in range(1, len(path)))


def _holds(path: Path, new: Leaves) -> bool:
    """Whether it was a leaf, and has something in it now."""
    return any(way[: len(path)] == path for way in new)


def _at(place: Any, step: str | ItemKey, inner: Any) -> Any:
    """What a step leads to, put there if there is nothing."""
    if isinstance(step, str):
        return place.setdefault(step, inner)
    item = next((each for each in place if each.get(step.field) == step.value), None)
    if item is None:
        place.append(item := {step.field: step.value})
    return item
