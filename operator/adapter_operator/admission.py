"""PURE: an AdmissionReview -> its answer, by the same models that everything else is validated with."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import InvalidDocument, plain
from adapter_api.job import MAX_NODES
from adapter_api.job_notes import notes_on_job
from adapter_api.notes import notes_on

Plain = dict[str, Any]
SCALE = "scale"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Request(_Part):
    uid: Annotated[str, Field(min_length=1, max_length=128)]
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"] = "CREATE"
    sub_resource: Annotated[str, Field(alias="subResource", max_length=64)] = ""
    object: Plain | None = None
    old_object: Annotated[Plain | None, Field(alias="oldObject")] = None


class _Review(_Part):
    request: _Request


def parsed(body: bytes) -> Plain:
    """The JSON of a request.

    Raises:
        ValueError: it is none, or nested deeper than any review of a job.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def review(request: Plain) -> Plain:
    """The AdmissionReview to send back.

    What changes no specification is let through: an object that an older version accepted can still be labelled
    and deleted.

    Args:
        request: `AdmissionReview` of admission.k8s.io/v1
            (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/).

    Raises:
        ValueError: it is none.
    """
    try:
        asked = _Review.model_validate(request).request
    except ValidationError as error:
        raise ValueError("not an AdmissionReview") from error
    job, before = asked.object or {}, asked.old_object or {}
    response: Plain = {"uid": asked.uid, "allowed": True}
    if asked.operation in {"CREATE", "UPDATE"} and _changes(asked.operation, job, before):
        message, warnings = (_scale_refusal(job), []) if asked.sub_resource == SCALE else _judged(job)
        if warnings:
            response["warnings"] = warnings  # kubectl shows them
        if message is not None:
            response |= {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": message}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _changes(operation: str, job: Plain, before: Plain) -> bool:
    try:
        return operation != "UPDATE" or bool(job.get("spec") != before.get("spec"))
    except RecursionError:  # to compare what is so deep is not worth the stack: it is no job
        return True


def _scale_refusal(scale: Plain) -> str | None:
    """Of `kubectl scale`, which shows the number alone; the operator checks what comes of it, as it does everything."""
    spec = scale.get("spec")
    nodes = (spec if isinstance(spec, dict) else {}).get("replicas", 0)  # 0 is left out
    if isinstance(nodes, int) and 1 <= nodes <= MAX_NODES:
        return None
    return f"spec.nodes: give an integer from 1 to {MAX_NODES}; set spec.suspend: true to run no pods"


def _judged(job: Plain) -> tuple[str | None, list[str]]:
    """Why the job is refused; or what it asks for and does not use."""
    given = job.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    # generateName is completed after admission.
    metadata.setdefault("name", f"{metadata.get('generateName', '')}xxxxx")
    whole = {**{key: job.get(key) for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}
    try:
        valid = validate_for_cluster(plain(whole, "job", at=("spec",)))
    except InvalidDocument as error:
        return "; ".join(line.removeprefix("job: ") for line in str(error).splitlines()), []
    return None, [*notes_on_job(valid), *(f"spec.training.{note}" for note in notes_on(valid.spec.training))]
