"""PURE: a status as it is stored, by whatever version wrote it -> what this version understands of it."""

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from adapter_api.status import JobStatus


def status_of(stored: dict[str, Any]) -> JobStatus:
    """The status, without what does not validate: a condition of a later version must not keep its job from being run."""
    try:
        return JobStatus.model_validate(stored)
    except ValidationError as error:
        faults = error.errors()
    understood = copy.deepcopy(stored)
    while True:
        _drop(understood, faults[0]["loc"])
        try:
            return JobStatus.model_validate(understood)
        except ValidationError as error:
            faults = error.errors()


def _drop(plain: Any, place: Sequence[int | str]) -> None:
    """Deletes the innermost element on the way to a place; a field that is missing takes its object with it."""
    holder, last = plain, place[0]
    for step in place[1:]:
        inner = holder[last]
        is_there = step in inner if isinstance(inner, dict) else isinstance(inner, list)
        if not is_there:
            break
        holder, last = inner, step
    del holder[last]
