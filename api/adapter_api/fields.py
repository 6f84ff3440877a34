"""PURE: every field of a model as its users write it: path, type, default, unit, meaning. And the schema that editors read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from adapter_api.base import MAX_INT
from adapter_api.descriptions import DescribedSchema
from adapter_api.units import unit_of

Plain = dict[str, Any]

ITEM = "[]"
"""Stands in a path for any entry of a list."""
NAME = "<name>"
"""Stands in a path for a name that users choose."""
REQUIRED = "required"
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""pydantic leaves its own names where a value is prepared before it is checked."""
_SHOWN_DEFAULT = 60
_LARGEST = 1e30
"""Bound that numbers have which have none of their own."""


@dataclass(frozen=True)
class FieldText:
    """One field, in words."""

    path: str
    """As in spec.training.data.params.columns[].kind."""
    type: str
    default: str
    """Empty where there is none but that of the fields inside."""
    unit: str
    """Empty of what is no quantity."""
    meaning: str
    is_section: bool
    """Whether it has fields of its own."""

    @property
    def parent(self) -> str:
        """Path of the section that the field is in."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path.rpartition(".")[2].removesuffix(ITEM)


@cache
def fields_of(model: type[BaseModel]) -> tuple[FieldText, ...]:
    """All fields at any depth, each before those inside it."""
    schema = model.model_json_schema(by_alias=True, schema_generator=DescribedSchema)
    return tuple(_Walk(schema.get("$defs", {})).inside(schema, ""))


def schema_of(model: type[BaseModel]) -> Plain:
    """The JSON schema (draft 2020-12) of the model's files, with descriptions, for editors."""
    schema: Plain = _standard(model.model_json_schema(by_alias=True, schema_generator=DescribedSchema))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _standard(node: Any) -> Any:
    if isinstance(node, list):
        return [_standard(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {_BOUNDS.get(key, key): _standard(value) for key, value in node.items()}
    # Titles repeat the names; a field may be called title, and then its schema is a mapping.
    return {key: value for key, value in found.items() if key != "title" or isinstance(value, dict)}


class _Walk:
    def __init__(self, definitions: Plain) -> None:
        self._definitions = definitions

    def inside(self, node: Plain, path: str) -> Iterator[FieldText]:
        """The fields of an object."""
        required = set(node.get("required", ()))
        for name, given in node["properties"].items():
            at = f"{path}.{name}" if path else name
            yield from self._field(at, given, is_required=name in required)

    def _field(self, path: str, given: Plain, *, is_required: bool) -> Iterator[FieldText]:
        node = self._resolved(given)
        inner = self._object_in(node)
        suffix, found = inner if inner is not None else ("", None)
        kind = self._type(node)
        yield FieldText(
            path,
            kind,
            REQUIRED if is_required else _default(node, is_section=found is not None),
            unit_of(path, kind),
            " ".join(str(node.get("description", "")).split()),
            found is not None,
        )
        if found is not None:
            yield from self.inside(found, path + suffix)

    def _resolved(self, node: Plain) -> Plain:
        while "$ref" in node:
            target = self._definitions[node["$ref"].rpartition("/")[2]]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        if "anyOf" in node and "description" not in node:
            described = [self._resolved(each).get("description") for each in node["anyOf"]]
            node = {**node, "description": next((each for each in described if each), "")}
        return node

    def _object_in(self, node: Plain) -> tuple[str, Plain] | None:
        """What is between a field and the object in it, in a path; None where there is no object."""
        for each in self._alternatives(node):
            if "properties" in each:
                return "", each
            if each.get("type") == "array" and isinstance(items := each.get("items"), dict):
                found = self._object_in(self._resolved(items))
                if found is not None:
                    return ITEM + found[0], found[1]
            if each.get("type") == "object" and (values := _values(each)) is not None:
                found = self._object_in(self._resolved(values))
                if found is not None:
                    return f".{NAME}{found[0]}", found[1]
        return None

    def _alternatives(self, node: Plain) -> list[Plain]:
        some = node.get("anyOf") or node.get("oneOf") or [node]
        return [each for each in map(self._resolved, some) if each.get("type") != "null"]

    def _type(self, node: Plain) -> str:
        return " or ".join(dict.fromkeys(self._one_type(each) for each in self._alternatives(node)))

    def _one_type(self, node: Plain) -> str:
        if "const" in node or "enum" in node:
            return " | ".join(str(each) for each in node.get("enum", [node.get("const")]))
        kind = node.get("type")
        if kind == "array":
            items = node.get("items") or (node.get("prefixItems") or [{}])[0]
            count = f"{node['minItems']} " if node.get("minItems") == node.get("maxItems") is not None else ""
            return f"list of {count}{self._plural(self._resolved(items))}"
        if kind == "object":
            if "properties" in node:
                return "section"
            values = _values(node)
            return "mapping" if values is None else f"mapping of names to {self._plural(self._resolved(values))}"
        if kind in {"integer", "number"}:
            return f"{kind}{_bounds(node)}"
        named = {"boolean": "true or false", "string": "time" if node.get("format") == "date-time" else "text"}
        return named.get(str(kind), "anything")

    def _plural(self, node: Plain) -> str:
        words = {"section": "sections", "text": "texts", "integer": "integers", "number": "numbers"}
        alternatives = self._alternatives(node)
        return " or ".join(dict.fromkeys(_pluralized(self._one_type(each), words) for each in alternatives))


def _pluralized(text: str, words: dict[str, str]) -> str:
    first, comma, rest = text.partition(",")
    return words.get(first, first) + comma + rest


def _values(node: Plain) -> Plain | None:
    values = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
    return values if isinstance(values, dict) and values else None


def _bounds(node: Plain) -> str:
    bounds = {_BOUNDS.get(key, key): value for key, value in node.items()}
    low, above = bounds.get("minimum"), bounds.get("exclusiveMinimum")
    high, below = bounds.get("maximum"), bounds.get("exclusiveMaximum")
    parts = []
    if above is not None:
        parts.append(f"above {above:g}")
    elif low is not None and low > -_LARGEST:
        parts.append(f"from {low:g}")
    if below is not None:
        parts.append(f"below {below:g}")
    elif high is not None and high < min(MAX_INT, _LARGEST):
        parts.append(f"to {_number(high)}")
    return f", {' '.join(parts)}" if parts else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _default(node: Plain, *, is_section: bool) -> str:
    default = node.get("default")
    if default is None:
        return "none"
    if default in ({}, []):
        return "empty"
    if is_section:
        return ""
    if default == "":
        return '""'
    text = default if isinstance(default, str) else json.dumps(default)
    return text if len(text) <= _SHOWN_DEFAULT else f"{text[: _SHOWN_DEFAULT - 1]}…"
