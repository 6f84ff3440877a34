"""An Event as events.k8s.io/v1 has it, and as the core group does: one object, stored once."""

from typing import Any

from tests.operator.support.stand_in import refusals
from tests.operator.support.stand_in.resources import NEW_EVENTS

Plain = dict[str, Any]

_NAMES = {"regarding": "involvedObject", "note": "message", "reportingController": "reportingComponent"}
"""Of fields, there and in the core group."""
_REQUIRED = ("eventTime", "reportingController", "reportingInstance", "action", "reason")


def as_core(event: Plain) -> Plain:
    """What is stored of an Event that is created by events.k8s.io/v1.

    Raises:
        Refusal: it lacks what is required there, or is of no known type.
    """
    faults = [f"{name}: Required value" for name in _REQUIRED if not event.get(name)]
    if event.get("type") not in {"Normal", "Warning"}:
        faults.append(f'type: Invalid value: "{event.get("type", "")}"')
    if faults:
        raise refusals.invalid(NEW_EVENTS, event["metadata"]["name"], faults)
    return {_NAMES.get(name, name): value for name, value in event.items()}


def as_new(event: Plain) -> Plain:
    """What events.k8s.io/v1 shows of a stored Event."""
    back = {core: new for new, core in _NAMES.items()}
    return {**{back.get(name, name): value for name, value in event.items()}, "apiVersion": NEW_EVENTS.api_version}
