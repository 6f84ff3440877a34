"""Every rendering of the chart is accepted by a real API server; what the chart is told reaches the operator and its pods."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter_operator.settings import PREFIX, Settings, settings
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.support.jobs import quickstart
from tests.support.repository import CHART, CHART_IMAGES

pytestmark = pytest.mark.cluster

Plain = dict[str, Any]
Render = Callable[..., list[Plain]]
VALUES = sorted(Path(__file__).with_name("values").glob("*.yaml"))
STRICT = Path(__file__).with_name("values") / "strict.yaml"


@pytest.fixture(scope="module")
def render(control_plane: ControlPlane) -> Render:
    def run(*arguments: str, release: str = "ato", namespace: str = "default") -> list[Plain]:
        command = [str(control_plane.program("helm")), "template", release, str(CHART), "-n", namespace, *CHART_IMAGES]
        done = subprocess.run(
            [*command, "--kube-version", "1.34.4", *arguments], env=dict(os.environ), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise ValueError(done.stderr)
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return run


def deployment(objects: list[Plain], component: str) -> Plain:
    return next(
        each["spec"]["template"]
        for each in objects
        if each["kind"] == "Deployment" and each["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )


def told(objects: list[Plain]) -> Settings:
    container = deployment(objects, "operator")["spec"]["containers"][0]
    return settings({each["name"]: each["value"] for each in container["env"] if each["name"].startswith(PREFIX) and "value" in each})  # fmt: skip


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_an_api_server_takes_every_object_of_a_rendering(
    control_plane: ControlPlane, render: Render, values: Path
) -> None:
    objects = render("-f", str(values))
    manifests = yaml.safe_dump_all(objects)
    dry = control_plane.kubectl(
        "apply",
        "--dry-run=server",
        "--server-side",
        "--validate=strict",
        "--force-conflicts",
        "-f",
        "-",
        stdin=manifests,
    )
    assert len(dry.splitlines()) == len(objects)


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_the_operator_understands_what_every_rendering_tells_it(render: Render, values: Path) -> None:
    assert told(render("-f", str(values))).trainer_image


def test_what_jobs_leave_open_reaches_the_operator(render: Render) -> None:
    given = told(render("-f", str(STRICT))).job_defaults
    assert given.resources.limits == {"cpu": "4", "memory": "16Gi"}
    assert [each.name for each in given.env] == ["HTTPS_PROXY", "NO_PROXY"]
    assert given.ca_bundle is not None
    assert given.ca_bundle.config_map is not None
    assert (given.runtime_class_name, given.priority_class_name) == ("nvidia", "training")
    assert given.topology_spread_constraints[0].topology_key == "topology.kubernetes.io/zone"
    assert told(render()).job_defaults == Settings().job_defaults


def test_pods_of_the_chart_are_what_values_say(render: Render) -> None:
    objects = render("-f", str(STRICT))
    for component in ("operator", "webhook"):
        template = deployment(objects, component)
        assert template["metadata"]["labels"]["example.org/team"] == "platform"
        assert template["metadata"]["annotations"] == {"example.org/seen": "yes"}
        assert template["spec"]["priorityClassName"] == "system-cluster-critical"
        (spread,) = template["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    names = {each["metadata"]["name"] for each in objects if each["kind"] != "CustomResourceDefinition"}
    assert all(name.startswith("trainers") for name in names)


def test_on_openshift_no_pod_names_a_user_or_a_group(render: Render) -> None:
    objects = render("--set", "openshift=true")
    for component in ("operator", "webhook"):
        security = deployment(objects, component)["spec"]["securityContext"]
        assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert told(objects).job_defaults.security_context.model_dump(exclude_none=True) == {}


def test_releases_of_one_name_for_two_namespaces_share_no_object(render: Render) -> None:
    def identities(namespace: str) -> set[tuple[str, str, str]]:
        objects = render("--set", f"watchNamespace={namespace},crd.install=false", namespace=namespace)
        return {(e["kind"], e["metadata"].get("namespace", ""), e["metadata"]["name"]) for e in objects}

    assert not identities("red") & identities("blue")


def test_the_webhook_and_the_operator_are_reached_at_their_own_port_only(render: Render) -> None:
    policies = {
        each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"].get("ingress", [])
        for each in render("-f", str(STRICT))
        if each["kind"] == "NetworkPolicy"
    }
    assert [[port["port"] for port in rule["ports"]] for rule in policies["webhook"]] == [[9443]]
    assert policies["webhook"][0]["from"] == [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    assert [[port["port"] for port in rule["ports"]] for rule in policies["operator"]] == [[8080]]
    assert policies["test"] == []


@pytest.mark.parametrize(
    "value",
    [
        "operator.replicas=0", "webhook.replicas=0", "fullnameOverride=Upper_Case", "nameOverride=-x",
        "webhook.certificates.caBundle=not-base64", "webhook.certificates.secretName=A b", "jobs.runtimeClassName=A b",
        "operator.podLabels.a=b c", "podSecurityContext.runAsUser=0", "jobs.caBundle.file=x", "operator.resources.limit.cpu=1",
        "operator.extraEnv[0].name=ADAPTER_OPERATOR_WORKERS", "serviceAccount.name=A b", "image.digest=sha256:1",
    ],
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused_before_anything_is_installed(render: Render, value: str) -> None:
    with pytest.raises(ValueError, match="values don't meet the specifications"):
        render("--set", value)


def test_who_may_not_create_pods_may_not_scale_a_job_either(control_plane: ControlPlane, render: Render) -> None:
    kinds = ("CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    policy = yaml.safe_dump_all([each for each in render(release="scaled") if each["kind"] in kinds])
    plane, team = control_plane, "scaled"
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=policy)
    plane.wait_for_crd("adaptertrainingjobs.adaptertraining.dev")
    plane.kubectl("create", "namespace", team)
    plane.kubectl("create", "-n", team, "-f", "-", stdin=json.dumps(quickstart("scaled")))
    resources = "--resource=adaptertrainingjobs.adaptertraining.dev,adaptertrainingjobs.adaptertraining.dev/scale"
    plane.kubectl("create", "role", "jobs", "--verb=get,update,patch", resources, "-n", team)
    plane.kubectl("create", "rolebinding", "anna", "--role=jobs", "--user=anna", "-n", team)
    with pytest.raises(ClusterError, match="you may not create pods in namespace scaled"):
        scale_often(plane, team, "anna")
    plane.kubectl("create", "role", "pods", "--verb=create", "--resource=pods", "-n", team)
    plane.kubectl("create", "rolebinding", "anna-pods", "--role=pods", "--user=anna", "-n", team)
    plane.kubectl("scale", "atj/scaled", "--replicas=3", "-n", team, "--as=anna")
    plane.kubectl(
        "delete",
        "validatingadmissionpolicy,validatingadmissionpolicybinding",
        "-l",
        "app.kubernetes.io/instance=scaled",
    )


def scale_often(plane: ControlPlane, team: str, user: str) -> None:
    for nodes in range(2, 60):  # the API server takes up a new policy a little later
        plane.kubectl("scale", "atj/scaled", f"--replicas={nodes}", "-n", team, f"--as={user}")
