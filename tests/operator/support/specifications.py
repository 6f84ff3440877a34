"""Specifications that a job must not have: those that ask for too much, and generated ones that make no sense."""

import json
from typing import Any

from hypothesis import strategies as st

from adapter_api.document import Document, InvalidDocument, validate
from adapter_api.job import AdapterTrainingJob
from tests.operator.support.on_plane import Plain, quick_job

FORBIDDEN: dict[str, Plain] = {
    "hostNetwork": {"pod": {"hostNetwork": True}},
    "hostPID": {"pod": {"hostPID": True}},
    "hostIPC": {"pod": {"hostIPC": True}},
    "hostPath": {"pod": {"volumes": [{"name": "v", "mountPath": "/v", "hostPath": {"path": "/"}}]}},
    "projected-token": {"pod": {"volumes": [{"name": "v", "mountPath": "/v", "projected": {"sources": []}}]}},
    "privileged": {"pod": {"securityContext": {"privileged": True}}},
    "capabilities": {"pod": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}},
    "procMount": {"pod": {"securityContext": {"procMount": "Unmasked"}}},
    "init-container": {"pod": {"initContainers": [{"name": "a", "image": "b"}]}},
    "ephemeral-container": {"pod": {"ephemeralContainers": [{"name": "a", "image": "b"}]}},
    "template": {"template": {"spec": {"hostNetwork": True}}},
    "nodeName": {"scheduling": {"nodeName": "control-plane"}},
    "runtimeClass": {"scheduling": {"runtimeClassName": "bare"}},
    "hostPort": {"pod": {"ports": [{"hostPort": 22}]}},
    "token-mounted": {"pod": {"automountServiceAccountToken": True}},
    "command": {"command": ["sh", "-c", "id"]},
    "secret-of-another-namespace": {"output": {"s3": {"uri": "s3://b/p", "secretRef": {"name": "a", "namespace": "kube-system"}}}},
    "secret-name-with-slash": {"output": {"s3": {"uri": "s3://b/p", "secretRef": {"name": "kube-system/a"}}}},
    "secret-name-that-climbs": {"output": {"s3": {"uri": "s3://b/p", "secretRef": {"name": "../a"}}}},
    "claim-that-climbs": {"data": {"pvc": {"claimName": "c", "path": "../../etc"}}},
    "mount-that-climbs": {"pod": {"volumes": [{"name": "v", "mountPath": "/v/../etc", "emptyDir": {}}]}},
    "env-of-the-launch": {"pod": {"env": [{"name": "MASTER_ADDR", "value": "elsewhere"}]}},
    "dotted-import": {"training": {"model": {"target": "os.system", "params": {}}}},
    "no-nodes": {"nodes": 0},
    "a-million-nodes": {"nodes": 1_000_000},
}  # fmt: skip
"""Of all that a job must not ask for."""

JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([
        None, True, -1, 0, 1_000_000, 2**31, 2**63, -(2**63), 1e308, 0.1, "", " ", "../..", "a/b", "$(rm -rf /)", "`id`",
        "--help", "a\nb", "\u202e\u0000x", "x" * 64, "x" * 300_000, "NaN", "Infinity", [], {}, [[]], {"a": {"b": 1}},
    ]),
    st.integers(),
    st.text(max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=3),
)  # fmt: skip
NAMES = st.sampled_from(["bad", "x" * 52, "x" * 53, "x" * 63, "1st", "Bad", "a.b", "a_b", "bäd", "-a", "a-"])


def places(plain: Any, so_far: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Ways to every value inside plain data."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [so_far, *(way for key, value in inner for way in places(value, (*so_far, key)))]


WHOLE: Plain = quick_job(
    "bad",
    scheduling={"queueName": "q", "nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
    pod={"env": [{"name": "A", "value": "b"}], "volumes": [{"name": "v", "mountPath": "/v", "emptyDir": {}}]},
    resumeFrom={"uri": "s3://checkpoints/before", "step": 1},
)["spec"]
PLACES = [way for way in places(WHOLE) if way]


@st.composite
def jobs(draw: st.DrawFn) -> Plain:
    """The quickstart, with one to three values of its specification replaced, and perhaps another name."""
    job = quick_job(draw(NAMES) if draw(st.integers(0, 4)) == 0 else "bad")
    job["spec"] = json.loads(json.dumps(WHOLE))
    for way in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        put(job["spec"], way, draw(JUNK))
    if draw(st.integers(0, 5)) == 0:
        job["spec"] |= draw(st.sampled_from(list(FORBIDDEN.values())))
    return job


def put(plain: Any, way: tuple[Any, ...], value: Any) -> None:
    *before, last = way
    for step in before:
        try:
            plain = plain[step]
        except (KeyError, IndexError, TypeError):
            return  # what was there has been replaced already
    if isinstance(plain, dict) or (isinstance(plain, list) and isinstance(last, int) and last < len(plain)):
        plain[last] = value


def is_valid(job: Plain) -> bool:
    try:
        validate(AdapterTrainingJob, Document("job", job))
    except InvalidDocument:
        return False
    return True
