"""PURE: label and field selectors -> whether an object is meant."""

import re
from collections.abc import Callable
from typing import Any

Plain = dict[str, Any]
Selects = Callable[[Plain], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<verb>in|notin)\s+\((?P<values>[^)]*)\)$")
_PARTS = re.compile(r",(?![^(]*\))")


def selects(labels: str, fields: str) -> Selects:
    """Whether an object has these labels and fields; empty selectors choose everything."""
    tests = [_label_test(part.strip()) for part in _PARTS.split(labels) if part.strip()]
    tests += [_field_test(part.strip()) for part in fields.split(",") if part.strip()]
    return lambda found: all(test(found) for test in tests)


def _label_test(text: str) -> Selects:
    if (found := _SET.match(text)) is not None:
        values = {value.strip() for value in found["values"].split(",")}
        key, is_in = found["key"], found["verb"] == "in"
        return lambda each: (_labels(each).get(key) in values) == is_in
    if "=" not in text:
        key, is_there = text.lstrip("!"), not text.startswith("!")
        return lambda each: (key in _labels(each)) == is_there
    key, value, is_equal = _equation(text)
    return lambda each: (_labels(each).get(key) == value) == is_equal


def _field_test(text: str) -> Selects:
    path, value, is_equal = _equation(text)
    return lambda each: (str(_field(each, path)) == value) == is_equal


def _equation(text: str) -> tuple[str, str, bool]:
    is_equal = "!=" not in text
    key, _, value = text.partition("=" if is_equal else "!=")
    return key.strip(), value.lstrip("=").strip(), is_equal


def _labels(found: Plain) -> Plain:
    return found["metadata"].get("labels") or {}


def _field(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found.get(name, "") if isinstance(found, dict) else ""
    return found
