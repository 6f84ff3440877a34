"""PURE: the environment variables that containers get from the job: credentials, trusted certificates, the user's own."""

from collections.abc import Iterable
from typing import Any

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import CREDENTIALS_PREFIX
from adapter_api.places import S3Access
from adapter_api.pod import CA_VARIABLES, EnvVar

Plain = dict[str, Any]

CA_FOLDER, CA_FILE = "/work/ca", "ca.crt"
_AWS_VARIABLES = (("AWS_ACCESS_KEY_ID", False), ("AWS_SECRET_ACCESS_KEY", False), ("AWS_SESSION_TOKEN", True))


def common_environment(job: AdapterTrainingJob) -> list[Plain]:
    """What all three containers get: where the trusted certificates are, proxies and what else the job says."""
    pod = job.spec.pod
    named = {variable.name for variable in (*pod.env, *pod.common_env)}
    trusted = () if pod.ca_bundle is None else tuple(name for name in CA_VARIABLES if name not in named)
    return [
        *({"name": name, "value": f"{CA_FOLDER}/{CA_FILE}"} for name in trusted),
        *_variables(pod.common_env),
    ]


def trainer_environment(job: AdapterTrainingJob) -> list[Plain]:
    """What the trainer gets, and the agent beside it does not."""
    return _variables(job.spec.pod.env)


def credentials(location: S3Access) -> list[Plain]:
    """The keys of the Secret of a place; none where the pod's own identity is used."""
    if location.secret_ref is None:
        return []
    secret = location.secret_ref.name
    return [
        {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": name, **({"optional": True} if opt else {})}},
        }
        for name, opt in _AWS_VARIABLES
    ]


def restore_credentials(job: AdapterTrainingJob) -> list[Plain]:
    """Places to read from whose credentials differ from the output's."""
    spec, found = job.spec, []
    places: tuple[tuple[str, S3Access | None], ...] = (
        ("DATA", spec.data.s3 if spec.data else None), ("MODELS", spec.models), ("RESUME", spec.resume_from),
    )  # fmt: skip
    for role, location in places:
        if location is None or location.secret_ref is None or location.secret_ref == spec.output.s3.secret_ref:
            continue
        found += [{**v, "name": f"{CREDENTIALS_PREFIX}{role}_{v['name']}"} for v in credentials(location)]
    return found


def _variables(given: Iterable[EnvVar]) -> list[Plain]:
    found: list[Plain] = []
    for variable in given:
        if variable.secret_key_ref is not None:
            reference = {"name": variable.secret_key_ref.name, "key": variable.secret_key_ref.key}
            found.append({"name": variable.name, "valueFrom": {"secretKeyRef": reference}})
        else:
            # Kubernetes would expand $(NAME) in a user's text.
            found.append({"name": variable.name, "value": (variable.value or "").replace("$(", "$$(")})
    return found
