"""Environment variables -> frozen Settings."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from adapter_api.document import InvalidDocument, parse, validate
from adapter_api.resources import Resources
from adapter_operator.job_defaults import JobDefaults
from adapter_operator.names import MANAGER

PREFIX = "ADAPTER_OPERATOR_"
AGENT_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})
JOB_DEFAULTS = JobDefaults()
Value = TypeVar("Value")


class InvalidSettings(Exception):  # noqa: N818 - it reads as the fact that it states
    """An environment variable has a value that means nothing; the message names it."""


@dataclass(frozen=True)
class Settings:
    """What the operator is told from outside; each field is read from ADAPTER_OPERATOR_<FIELD>."""

    trainer_image: str = "adapter-trainer:0.1.0"
    """Image of jobs that name none."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    watch_namespace: str = ""
    """Empty: the whole cluster."""
    pod_namespace: str = "default"
    """Where the operator runs, and keeps its Lease."""
    pod_name: str = MANAGER
    lease_name: str = MANAGER
    lease_seconds: int = 15
    """How long an operator that has vanished keeps another from taking its place."""
    workers: int = 32
    """Jobs that are reconciled at a time."""
    resync_seconds: float = 300
    """Between two full lists, which forget what a watch has missed."""
    watch_silence_seconds: float = 70
    """A watch that says nothing for so long, not even a bookmark (the API server sends one a minute), is opened anew."""
    progress_seconds: float = 5
    """Between two questions to a job's agent, and two writes of progress; longer when very many jobs run."""
    http_port: int = 8080
    queries_per_second: float = 300
    burst: int = 600
    network_policies: bool = True
    """Whether each job gets a NetworkPolicy: its rendezvous port knows no authentication, and listens on every address."""
    commit_marks: bool = True
    """Whether a child Job and its pods carry the step and time of the newest commit as annotations: a write each for every commit."""
    agent_resources: Resources = AGENT_RESOURCES
    """Of the agent's containers in jobs that do not say so, as JSON: {"requests": {...}, "limits": {...}}."""
    job_defaults: JobDefaults = JOB_DEFAULTS
    """What jobs that do not say so get, as JSON: the chart's value `jobs`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


def settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment holds.

    Raises:
        InvalidSettings: a value that cannot be used.
    """
    given: dict[str, Any] = {}
    for each in fields(Settings):
        variable = PREFIX + each.name.upper()
        if (text := environment.get(variable)) is not None:
            given[each.name] = _parsed(variable, text, each.type, getattr(each.type, "__args__", ()))
    return Settings(**given)


def _parsed(variable: str, text: str, kind: Any, choices: tuple[str, ...]) -> Any:
    if choices:
        if text not in choices:
            raise InvalidSettings(f"{variable}={text!r}: give one of {', '.join(choices)}")
        return text
    if kind is bool:
        if text.lower() not in {"true", "false"}:
            raise InvalidSettings(f"{variable}={text!r}: give true or false")
        return text.lower() == "true"
    if kind in {Resources, JobDefaults}:
        try:
            return validate(kind, parse(text, variable))
        except InvalidDocument as error:
            raise InvalidSettings("; ".join(str(fault) for fault in error.faults)) from error
    if kind in {int, float}:
        return _positive(variable, text, kind)
    return text


def _positive(variable: str, text: str, kind: Callable[[str], Value]) -> Value:
    try:
        value = kind(text)
        is_positive = 0 < float(text) < 1e9
    except ValueError:
        is_positive = False
    if not is_positive:
        raise InvalidSettings(f"{variable}={text!r}: give a positive {'integer' if kind is int else 'number'}")
    return value
