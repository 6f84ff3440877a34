"""PURE: a pydantic model -> a structural OpenAPI v3 schema, as CustomResourceDefinitions need them.

Differences from JSON Schema that matter: no $ref, no null in unions, every value of one type; `x-kubernetes-int-or-string` and
`x-kubernetes-preserve-unknown-fields` stand for what cannot be said so.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import json
from typing import Any

from pydantic import BaseModel

from adapter_api.descriptions import DescribedSchema

Plain = dict[str, Any]

MAX_TEXT = 32_768
MAX_ITEMS = 4096
MAX_ENTRIES = 256
"""Bounds of what has none of its own: the API server refuses rules whose cost it cannot bound."""

_LARGEST_BOUND = 2**53
"""The API server compares whole numbers with bounds as 64-bit integers, in which larger bounds overflow: 67.0 would be too
large for a maximum of 1e30. The models check those."""
_KEPT = ("pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "enum", "maxProperties")
_RENAMED = {"ge": "minimum", "le": "maximum"}
_WITHOUT_DEFAULTS = frozenset({"training"})
"""Properties whose defaults, at any depth, stand in descriptions only."""
_INT_OR_STRING = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def structural(model: type[BaseModel]) -> Plain:
    """The schema of a model as it is written in files (by alias)."""
    schema = model.model_json_schema(by_alias=True, schema_generator=DescribedSchema)
    return _Converter(schema.get("$defs", {})).convert(schema, defaults=True)


class _Converter:
    def __init__(self, definitions: Plain) -> None:
        self._definitions = definitions

    def convert(self, node: Plain, *, defaults: bool) -> Plain:
        node = self._resolved(node)
        found: Plain = {}
        if "description" in node:
            found["description"] = " ".join(node["description"].split())
        alternatives = node.get("anyOf") or node.get("oneOf")
        if alternatives is not None:
            found = {**self._union(alternatives, defaults=defaults), **found}
        else:
            found |= self._typed(node, defaults=defaults)
        return self._with_default(found, node, defaults=defaults)

    def _resolved(self, node: Plain) -> Plain:
        """Without $ref; what stands beside it wins over what it leads to."""
        while "$ref" in node:
            target = self._definitions[node["$ref"].rpartition("/")[2]]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return node

    def _union(self, alternatives: list[Plain], *, defaults: bool) -> Plain:
        some = [self._resolved(each) for each in alternatives if each.get("type") != "null"]
        is_nullable = len(some) < len(alternatives)
        if len(some) == 1:
            inner = self.convert(some[0], defaults=defaults)
            return {**inner, **({"nullable": True} if is_nullable else {})}
        kinds = {each.get("type") for each in some}
        if kinds == {"integer", "string"}:
            found = dict(_INT_OR_STRING)
            for each in some:
                bounds = self._bounds(each)
                if each.get("type") == "string" and "enum" in bounds:
                    bounds = {"pattern": f"^({'|'.join(bounds.pop('enum'))})$"}
                found |= {key: value for key, value in bounds.items() if key in {"minimum", "maximum", "pattern"}}
            return found
        return {"x-kubernetes-preserve-unknown-fields": True}

    def _typed(self, node: Plain, *, defaults: bool) -> Plain:
        kind = node.get("type")
        if kind is None and "const" not in node and "enum" not in node:
            return {"x-kubernetes-preserve-unknown-fields": True}
        found: Plain = {"type": kind or "string", **self._bounds(node)}
        if kind == "object":
            return found | self._object(node, defaults=defaults)
        if kind == "array":
            return found | self._array(node, defaults=defaults)
        if kind == "string" and "enum" not in found and "format" not in found:
            found.setdefault("maxLength", MAX_TEXT)
        return found

    def _bounds(self, node: Plain) -> Plain:
        found = {key: node[key] for key in _KEPT if key in node}
        found |= {new: node[old] for old, new in _RENAMED.items() if old in node}
        if "gt" in node:
            found |= {"minimum": node["gt"], "exclusiveMinimum": True}
        for bound in ("minimum", "maximum"):
            if abs(found.get(bound, 0)) > _LARGEST_BOUND:
                del found[bound]
        if "const" in node:
            found["enum"] = [node["const"]]
        if node.get("type") == "integer":
            found["format"] = "int64"
        if node.get("format") == "date-time":
            found["format"] = "date-time"
        return found

    def _object(self, node: Plain, *, defaults: bool) -> Plain:
        if "properties" in node:
            properties = {
                name: self.convert(each, defaults=defaults and name not in _WITHOUT_DEFAULTS)
                for name, each in node["properties"].items()
            }
            required = {"required": list(node["required"])} if node.get("required") else {}
            return {**required, "properties": properties}
        values = node.get("additionalProperties")
        # The form of keys cannot be said; the models check it.
        values = next(iter(node.get("patternProperties", {}).values()), values)
        if isinstance(values, dict) and values:
            return {
                "additionalProperties": self.convert(values, defaults=defaults),
                "maxProperties": node.get("maxProperties", MAX_ENTRIES),
            }
        return {"x-kubernetes-preserve-unknown-fields": True}

    def _array(self, node: Plain, *, defaults: bool) -> Plain:
        items = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return {"items": self.convert(items, defaults=defaults), "maxItems": node.get("maxItems", MAX_ITEMS)}

    @staticmethod
    def _with_default(found: Plain, node: Plain, *, defaults: bool) -> Plain:
        default = node.get("default")
        if default is None or default in ("", [], {}):
            return found
        if not defaults:
            if found.get("type") != "object":
                said = found.get("description", "")
                found["description"] = f"{said} Default: {json.dumps(default)}.".strip()
            return found
        if found.get("type") == "object":
            # Its fields have defaults of their own.
            return found if found.get("required") else {**found, "default": {}}
        return {**found, "default": default}
