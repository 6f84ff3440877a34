"""PURE: what a structural schema makes of an object: unknown fields go, defaults come, values that do not fit are named.

Types, required fields, enumerations and bounds of numbers are checked. Patterns, lengths and CEL rules are not: those are the
API server's own work, and are tested on it.
"""

from collections.abc import Iterator
from typing import Any

from tests.operator.support.stand_in.fields import Keyed

Plain = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip
_ENVELOPE = ("apiVersion", "kind", "metadata")


def shaped(found: Plain, schema: Plain) -> tuple[Plain, list[str]]:
    """The object without unknown fields and with defaults, and the paths of what was unknown."""
    unknown: list[str] = []
    inner = _shaped({name: value for name, value in found.items() if name not in _ENVELOPE}, schema, "", unknown)
    return {**{name: found[name] for name in _ENVELOPE if name in found}, **inner}, unknown


def faults(found: Plain, schema: Plain) -> list[str]:
    """What does not fit, each with its path."""
    return list(_faults({name: value for name, value in found.items() if name not in _ENVELOPE}, schema, ""))


def keyed_lists(schema: Plain, path: tuple[str, ...] = ()) -> Keyed:
    """Where lists are whose items have a key."""
    found: dict[tuple[str, ...], str] = {}
    if schema.get("x-kubernetes-list-type") == "map":
        found[path] = schema["x-kubernetes-list-map-keys"][0]
    for name, inner in (schema.get("properties") or {}).items():
        found |= keyed_lists(inner, (*path, name))
    return found


def _shaped(found: Any, schema: Plain, path: str, unknown: list[str]) -> Any:
    if isinstance(found, list) and "items" in schema:
        return [_shaped(item, schema["items"], f"{path}[{index}]", unknown) for index, item in enumerate(found)]
    if not isinstance(found, dict):
        return found
    properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
    result: Plain = {}
    for name, value in found.items():
        way = f"{path}.{name}".lstrip(".")
        if name in properties:
            if value is None and not properties[name].get("nullable") and "default" in properties[name]:
                continue  # takes its default below
            result[name] = _shaped(value, properties[name], way, unknown)
        elif isinstance(others, dict):
            result[name] = _shaped(value, others, way, unknown)
        elif schema.get("x-kubernetes-preserve-unknown-fields") or others:
            result[name] = value
        else:
            unknown.append(way)
    for name, inner in properties.items():
        if name not in result and "default" in inner:
            result[name] = _shaped(inner["default"], inner, f"{path}.{name}", [])
    return result


def _faults(found: Any, schema: Plain, path: str) -> Iterator[str]:
    if found is None and schema.get("nullable"):
        return
    kind = schema.get("type")
    if kind is not None and not _is_of(found, kind):
        yield f'{path}: Invalid value: "{type(found).__name__}": must be of type {kind}'
        return
    if "enum" in schema and found not in schema["enum"]:
        yield f"{path}: Unsupported value: {found!r}"
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        yield from _out_of_bounds(found, schema, path)
    if isinstance(found, list) and "items" in schema:
        for index, item in enumerate(found):
            yield from _faults(item, schema["items"], f"{path}[{index}]")
    if isinstance(found, dict):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        yield from (f"{path}.{name}: Required value".lstrip(".") for name in schema.get("required") or () if name not in found)  # fmt: skip
        for name, value in found.items():
            inner = properties.get(name, others if isinstance(others, dict) else {})
            yield from _faults(value, inner, f"{path}.{name}".lstrip("."))


def _is_of(found: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(found, float):
        return found.is_integer()
    return isinstance(found, _TYPES[kind]) and not (isinstance(found, bool) and kind in {"integer", "number"})


def _out_of_bounds(found: float, schema: Plain, path: str) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (found < low or (schema.get("exclusiveMinimum") and found == low)):
        yield f"{path}: Invalid value: {found}: should be greater than or equal to {low}"
    if high is not None and (found > high or (schema.get("exclusiveMaximum") and found == high)):
        yield f"{path}: Invalid value: {found}: should be less than or equal to {high}"
