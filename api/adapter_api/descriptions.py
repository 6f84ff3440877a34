"""A model's JSON schema with descriptions of its fields: the docstrings below them, read from the source when asked for.

pydantic reads them itself (`use_attribute_docstrings`), but as it builds the class, in every process that imports it: a third
of the time that all models take, for what only the CustomResourceDefinition shows.
"""

import ast
import inspect
import sys
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema


class DescribedSchema(GenerateJsonSchema):
    """The schema that `model_json_schema(schema_generator=DescribedSchema)` makes."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of one model, described; fields with a description of their own keep it."""
        result = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        described = docstrings(model)
        for name, field in model.model_fields.items():
            shown = result["properties"].get(field.alias if self.by_alias and field.alias else name)
            if shown is not None and name in described:
                shown.setdefault("description", described[name])
        return result


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the string below it; those that a model inherits are its parents'."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            found |= _of_module(parent.__module__).get(parent.__qualname__, {})
    return found


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    """Class -> field -> docstring."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found
