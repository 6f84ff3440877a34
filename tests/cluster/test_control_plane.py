"""What tests may rely on when they ask for a control plane."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.tools import Tools

pytestmark = pytest.mark.cluster

RESTRICTED_IMAGE = "registry.example/forbidden"

INDEXED_JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "gang"},
    "spec": {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [
                    {"name": "restore", "image": "any"},
                    {"name": "sync", "image": "any", "restartPolicy": "Always"},
                ],
                "containers": [{"name": "trainer", "image": "any"}],
            }
        },
    },
}

ADMISSION_POLICY = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "no-forbidden-image"},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                    ]
                },
                "validations": [{"expression": f"object.spec.containers.all(c, c.image != '{RESTRICTED_IMAGE}')"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "no-forbidden-image"},
            "spec": {"policyName": "no-forbidden-image", "validationActions": ["Deny"]},
        },
    ],
}


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").lower()[:60].strip("-")
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=120s")
    return str(name)


@pytest.fixture(scope="module")
def second_plane(cluster_tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("second"), cluster_tools, audit=True)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def test_a_started_control_plane_is_ready_and_says_its_version(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    version = json.loads(control_plane.kubectl("version", "--output=json"))
    assert version["serverVersion"]["gitVersion"] == control_plane.version


def test_pods_of_an_indexed_job_run_on_fake_nodes(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(INDEXED_JOB))
    for index in ("0", "1"):
        pod = f"batch.kubernetes.io/job-completion-index={index}"
        control_plane.kubectl("wait", "--for=create", "pod", "-n", namespace, "-l", pod, "--timeout=120s")
        control_plane.kubectl("wait", "--for=condition=Ready", "pod", "-n", namespace, "-l", pod, "--timeout=120s")
    pods = json.loads(control_plane.kubectl("get", "pods", "-n", namespace, "--output=json"))["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]
    states = {status["name"]: set(status["state"]) for status in pods[0]["status"]["initContainerStatuses"]}
    assert states == {"restore": {"terminated"}, "sync": {"running"}}


def test_a_user_without_a_role_may_do_nothing(control_plane: ControlPlane, namespace: str) -> None:
    user = f"--as=system:serviceaccount:{namespace}:default"
    with pytest.raises(ClusterError, match="cannot list resource"):
        control_plane.kubectl("get", "pods", "-n", namespace, user)


def test_a_service_account_token_identifies_its_holder(control_plane: ControlPlane, namespace: str) -> None:
    token = control_plane.kubectl("create", "token", "default", "-n", namespace).strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(control_plane.kubectl("create", "-f", "-", "--output=json", stdin=json.dumps(review)))
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_a_validating_admission_policy_refuses_what_it_forbids(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(ADMISSION_POLICY))
    try:
        with pytest.raises(ClusterError, match="no-forbidden-image"):
            create_pods(600, control_plane, namespace)  # many, as the API server takes up a new policy a little later
    finally:
        control_plane.kubectl("delete", "-f", "-", stdin=json.dumps(ADMISSION_POLICY))


def create_pods(count: int, control_plane: ControlPlane, namespace: str) -> None:
    for number in range(count):
        control_plane.kubectl("run", f"pod-{number}", "-n", namespace, f"--image={RESTRICTED_IMAGE}")


def test_what_was_stored_outlives_a_killed_api_server(second_plane: ControlPlane) -> None:
    second_plane.kubectl("create", "namespace", "kept")
    second_plane.kill("kube-apiserver")
    with pytest.raises(ClusterError, match="refused"):
        second_plane.kubectl("get", "namespace", "kept")
    second_plane.start_again("kube-apiserver")
    assert "kept" in second_plane.kubectl("get", "namespace", "kept")


def test_the_audit_log_names_who_wrote_what(second_plane: ControlPlane) -> None:
    second_plane.kubectl("create", "namespace", "audited")
    events = [json.loads(line) for line in second_plane.audit_log.read_text().splitlines()]
    writes = [event for event in events if event["requestURI"].startswith("/api/v1/namespaces?")]
    assert any(event["verb"] == "create" and event["user"]["username"] == "admin" for event in writes)


def test_control_planes_side_by_side_know_nothing_of_each_other(
    control_plane: ControlPlane, second_plane: ControlPlane
) -> None:
    second_plane.kubectl("create", "namespace", "only-here")
    with pytest.raises(ClusterError, match="not found"):
        control_plane.kubectl("get", "namespace", "only-here")


def test_a_stopped_control_plane_leaves_nothing(cluster_tools: Tools, tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path / "plane", cluster_tools)
    plane.start()
    running = [plane.processes.find(name) for name in plane.processes.names()]
    plane.stop()
    assert len(running) == 4
    assert not [process for process in running if process and _runs(process)]
    assert list(tmp_path.iterdir()) == []


def _runs(process: psutil.Process) -> bool:
    """A child of ours that has been killed stays in the table until somebody asks how it ended."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
