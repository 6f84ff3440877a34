"""PURE: a part of a job as Kubernetes takes it."""

from typing import Any

from pydantic import BaseModel


def plain(model: BaseModel | None) -> dict[str, Any]:
    """What the job says; nothing where it says nothing."""
    dumped = {} if model is None else model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dict(dumped)
