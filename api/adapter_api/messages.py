"""PURE: pydantic's error details -> what a user should give instead."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

INCONSISTENT = "inconsistent"
"""Error type of a rule across fields: its location names fields, written or left at their defaults."""

_EXPECTED = {
    "bool_type": "true or false",
    "date_type": "a date",
    "datetime_from_date_parsing": "a date and time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "a date and time such as 2026-01-31T12:00:00Z",
    "datetime_type": "a date and time such as 2026-01-31T12:00:00Z",
    "dict_type": "a mapping of fields",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number of more than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "less_than": "a number of less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "a mapping of fields",
    "model_type": "a mapping of fields",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_type": "text",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
_MAX_SHOWN = 60


def refuse(title: str, faults: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """Raises what a rule across fields has found, if it has: each message at the field to change.

    Raises:
        ValidationError: inside a validator it becomes part of the model's own.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError(INCONSISTENT, "{message}", {"message": message}), loc=location, input=None
        )
        for location, message in faults
    ]
    if details:
        raise ValidationError.from_exception_data(title, details)


def message_of(details: Iterable[dict[str, Any]]) -> str:
    """One message for the errors of one value; several come from the alternatives of a union."""
    found = list(details)
    kinds = {detail["type"]: detail for detail in found}
    if "missing" in kinds:
        return "is required"
    if "extra_forbidden" in kinds:
        return "is not a field here; check its spelling and its indentation"
    expected = [_expected(kind, detail) for kind, detail in kinds.items() if kind in _EXPECTED]
    stated = list(dict.fromkeys(_stated(detail) for detail in found if detail["type"] not in _EXPECTED))
    if not expected:
        return "; ".join(stated)
    given = next(iter(kinds.values())).get("input")
    wanted = f"give {' or '.join(dict.fromkeys(expected))}"
    return "; ".join([wanted if isinstance(given, BaseModel) else f"{wanted}, not {shown(given)}", *stated])


def _expected(kind: str, detail: dict[str, Any]) -> str:
    return _EXPECTED[kind].format(**detail.get("ctx", {}))


def _stated(detail: dict[str, Any]) -> str:
    return str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def shown(value: Any) -> str:
    """A value as a user wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    # Cut before repr: a text may be long, and so may be an integer that JSON delivered.
    text = repr(value[: _MAX_SHOWN + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
