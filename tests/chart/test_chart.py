"""The chart on a real API server: the exact rights, who may create jobs, what upgrade and uninstall leave."""

import json
import os
import subprocess
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.support.jobs import quickstart
from tests.support.repository import CHART, CHART_IMAGES

pytestmark = pytest.mark.cluster

SYSTEM, TEAM, NAME = "ato-system", "chart-team", "ato-adapter-training-operator"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{NAME}"
ALLOWED = {
    ("adaptertraining.dev", "adaptertrainingjobs"): {"get", "list", "watch", "delete"},
    ("adaptertraining.dev", "adaptertrainingjobs/status"): {"patch"},
    ("adaptertraining.dev", "adaptertrainingjobs/finalizers"): {"update"},
    ("batch", "jobs"): {"get", "list", "create", "delete", "patch"},
    ("", "pods"): {"get", "list", "watch", "deletecollection", "patch"},
    ("", "pods/log"): {"get"},
    ("", "configmaps"): {"get", "create"},
    ("", "services"): {"get", "create"},
    ("networking.k8s.io", "networkpolicies"): {"get", "create"},
    ("events.k8s.io", "events"): {"create"},
    ("", "events"): {"list"},  # why the Job controller could make no pod
}

Plain = dict[str, Any]


@pytest.fixture(scope="module")
def helm(control_plane: ControlPlane) -> Any:
    program = str(control_plane.program("helm"))
    environment = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)}

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="module")
def template(helm: Any, control_plane: ControlPlane) -> Any:
    """`helm template` of the chart for this Kubernetes."""

    def run(*arguments: str, fails: bool = False) -> str:
        told: str = helm(
            "template", "ato", str(CHART), "--kube-version", control_plane.version, *arguments, fails=fails
        )
        return told

    return run


def rendered(template: Any, *values: str) -> list[Plain]:
    sets = [part for value in values for part in ("--set", value)]
    text = template("-n", SYSTEM, *CHART_IMAGES, *sets)
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize(
    "values",
    [(), ("watchNamespace=team",), ("webhook.certificates.mode=cert-manager",), ("webhook.enabled=false", "metrics.service=false"),
     ("operator.replicas=2", "metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true"),
     ("webhook.certificates.mode=existing", "webhook.certificates.secretName=mine", "webhook.certificates.caBundle=QQ==")],
)  # fmt: skip
def test_every_pod_of_the_chart_passes_restricted_and_no_right_is_a_wildcard(
    template: Any, values: tuple[str, ...]
) -> None:
    for each in rendered(template, *values):
        spec = each.get("spec", {})
        template = spec.get("template", {}).get("spec") if each["kind"] == "Deployment" else None
        if template is not None:
            assert template["securityContext"]["runAsNonRoot"] is True
            for container in template["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert "memory" in container["resources"]["limits"]
        if each["kind"] in {"Role", "ClusterRole"}:
            for rule in each["rules"]:
                assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
                assert "secrets" not in rule["resources"]


def test_one_namespace_needs_no_cluster_role(template: Any) -> None:
    kinds = {each["kind"] for each in rendered(template, "watchNamespace=team")}
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds


@pytest.mark.parametrize("value", ["operator.replica=2", "webhook.certificates.mode=magic", "operator.logLevel=loud"])
def test_a_value_that_means_nothing_is_refused(template: Any, value: str) -> None:
    assert "values don't meet the specifications" in template(*CHART_IMAGES, "--set", value, fails=True)


@pytest.mark.parametrize("given", [(), CHART_IMAGES[:2], CHART_IMAGES[2:]], ids=["neither", "operator", "trainer"])
def test_without_both_images_the_chart_says_what_to_build_and_to_set(template: Any, given: tuple[str, ...]) -> None:
    told = template(*given, fails=True)
    assert "docker build --target operator, docker build --target trainer" in told
    assert (
        "--set image.repository=REGISTRY/adapter-training-operator --set trainer.image=REGISTRY/adapter-trainer:"
        in told
    )


@pytest.fixture(scope="module")
def installed(helm: Any, control_plane: ControlPlane) -> ControlPlane:
    # Both may be there from other tests, and not be Helm's.
    control_plane.kubectl("delete", "crd", "adaptertrainingjobs.adaptertraining.dev", "--ignore-not-found")
    control_plane.kubectl("delete", "namespace", TEAM, "--ignore-not-found")
    values = ("--set", "webhook.failurePolicy=Ignore")  # KWOK's pods answer nothing
    helm("install", "ato", str(CHART), "-n", SYSTEM, "--create-namespace", *CHART_IMAGES, *values)
    control_plane.wait_for_crd("adaptertrainingjobs.adaptertraining.dev")
    control_plane.kubectl("create", "namespace", TEAM)
    return control_plane


def test_the_operator_may_do_exactly_what_it_does(installed: ControlPlane) -> None:
    role = json.loads(installed.kubectl("get", "clusterrole", NAME, "-o", "json"))
    given: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                given.setdefault((group, resource), set()).update(rule["verbs"])
    assert given == ALLOWED
    for verb, resource in (("get", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("update", "nodes"), ("list", "secrets")):  # fmt: skip
        with pytest.raises(ClusterError):
            installed.kubectl("auth", "can-i", verb, resource, "--all-namespaces", f"--as={ACCOUNT}")


def test_who_may_not_create_pods_may_not_create_jobs(installed: ControlPlane) -> None:
    jobs_only = ("create", "role", "jobs", "--verb=create,get,patch", "--resource=adaptertrainingjobs.adaptertraining.dev", "-n", TEAM)  # fmt: skip
    installed.kubectl(*jobs_only)
    for user in ("anna", "bela"):
        installed.kubectl("create", "rolebinding", f"{user}-jobs", "--role=jobs", f"--user={user}", "-n", TEAM)
    installed.kubectl("create", "role", "pods", "--verb=create", "--resource=pods", "-n", TEAM)
    installed.kubectl("create", "rolebinding", "bela-pods", "--role=pods", "--user=bela", "-n", TEAM)
    with pytest.raises(ClusterError, match="you may not create pods in namespace chart-team"):
        create_many(installed, "anna")  # the API server takes up a new policy a little later
    installed.kubectl("create", "-n", TEAM, "-f", "-", "--as=bela", stdin=json.dumps(quickstart("bela")))
    patch = ("patch", "atj", "bela", "-n", TEAM, "--as=anna", "--type=merge", "-p")
    with pytest.raises(ClusterError, match="you may not create pods in namespace chart-team"):
        installed.kubectl(*patch, '{"spec": {"nodes": 3}}')
    installed.kubectl(*patch, '{"metadata": {"labels": {"seen-by": "anna"}}}')


def create_many(plane: ControlPlane, user: str) -> None:
    for number in range(100):
        job = json.dumps(quickstart(f"{user}-{number}"))
        plane.kubectl("create", "-n", TEAM, "-f", "-", f"--as={user}", stdin=job)


def test_upgrades_keep_the_certificate_and_uninstalling_keeps_the_jobs(helm: Any, installed: ControlPlane) -> None:
    def certificate() -> str:
        return installed.kubectl("get", "secret", f"{NAME}-webhook", "-n", SYSTEM, "-o", "jsonpath={.data.tls\\.crt}")

    before = certificate()
    helm("upgrade", "ato", str(CHART), "-n", SYSTEM, "--reuse-values", "--set", "operator.workers=8")
    assert certificate() == before
    installed.kubectl("apply", "-n", TEAM, "-f", "-", stdin=json.dumps(quickstart("kept")))
    helm("uninstall", "ato", "-n", SYSTEM)
    assert "kept" in installed.kubectl("get", "atj", "-n", TEAM)
