"""PURE: an AdmissionReview -> its answer, by the same models that everything else is validated with."""

from typing import Any

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import Document, InvalidDocument

Plain = dict[str, Any]

MAX_FAULTS = 20


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
        asked = request["request"]
        uid, job, before = asked["uid"], asked.get("object") or {}, asked.get("oldObject") or {}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an AdmissionReview") from error
    response: Plain = {"uid": uid, "allowed": True}
    if asked.get("operation") != "UPDATE" or job.get("spec") != before.get("spec"):
        message = _refusal(job)
        if message is not None:
            response |= {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": message}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _refusal(job: Plain) -> str | None:
    metadata = dict(job.get("metadata") or {})
    # generateName is completed after admission.
    metadata.setdefault("name", f"{metadata.get('generateName', '')}xxxxx")
    document = Document("job", {**{key: job.get(key) for key in ("apiVersion", "kind", "spec")}, "metadata": metadata})
    try:
        validate_for_cluster(document)
    except InvalidDocument as error:
        lines = str(error).splitlines()
        more = [f"and {len(lines) - MAX_FAULTS} more"] if len(lines) > MAX_FAULTS else []
        return "; ".join([*(line.removeprefix("job: ") for line in lines[:MAX_FAULTS]), *more])
    return None
