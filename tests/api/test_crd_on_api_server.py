"""The CRD on a real API server: accepts what the models accept, refuses early what it can, explains itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter_api.crd import FILES
from adapter_api.document import read
from adapter_api.job import AdapterTrainingJob
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.support.jobs import quickstart
from tests.support.repository import DIGITS, QUICKSTART, REPOSITORY

pytestmark = pytest.mark.cluster

Plain = dict[str, Any]
NAMESPACE = "crd"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / FILES[0]))
    control_plane.wait_for_crd("adaptertrainingjobs.adaptertraining.dev")
    control_plane.kubectl("create", "namespace", NAMESPACE)
    return control_plane


def apply(plane: ControlPlane, job: Plain) -> str:
    return plane.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(job))


@pytest.mark.parametrize("file", [QUICKSTART, DIGITS], ids=["the demonstration's", "digits"])
def test_a_job_is_accepted_as_it_stands_in_its_file(plane: ControlPlane, file: Path) -> None:
    written = AdapterTrainingJob.model_validate(read(file).data)
    plane.kubectl("apply", "-n", NAMESPACE, "-f", str(file))
    stored = json.loads(plane.kubectl("get", "atj", written.metadata.name, "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["restart"]["hangSeconds"] == 1800, "defaults are filled in"
    job = AdapterTrainingJob.model_validate(stored)
    assert job.spec.training == written.spec.training


def test_a_schema_without_faults_is_established(plane: ControlPlane) -> None:
    found = json.loads(plane.kubectl("get", "crd", "adaptertrainingjobs.adaptertraining.dev", "-o", "json"))
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_kubectl_explains_every_level(plane: ControlPlane) -> None:
    assert "Seconds without a training step after which an attempt counts" in plane.kubectl(
        "explain", "atj.spec.restart"
    )
    assert "label_to_token" in plane.kubectl("explain", "atj.spec.training.model.params.token_conditioners")


def test_the_table_has_the_columns_that_people_look_for(plane: ControlPlane) -> None:
    apply(plane, quickstart("shown"))
    header = plane.kubectl("get", "atj", "-n", NAMESPACE).splitlines()[0].split()
    assert header == ["NAME", "STATE", "STEP", "LOSS", "ETA", "CHECKPOINT", "RESTARTS", "AGE"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"nodes": 0}, "spec.nodes"),
        ({"nodes": 1_000_000}, "spec.nodes"),
        ({"nodes": "two"}, "spec.nodes"),
        ({"nodez": 2}, 'unknown field "spec.nodez"'),
        ({"procsPerNode": "all"}, "spec.procsPerNode"),
        ({"restart": {"maxRestarts": -1}}, "spec.restart.maxRestarts"),
        ({"data": {"s3": {"uri": "s3://abc/d"}, "pvc": {"claimName": "c"}}}, "give exactly one of s3 and pvc"),
        ({"data": {}}, "give exactly one of s3 and pvc"),
        ({"data": {"folder": "data/digits"}}, "folder is on the machine of `atj run`, and no pod can see it"),
        ({"output": {}}, "spec.output.s3"),
        ({"pod": {"env": [{"name": "A"}]}}, "give exactly one of value and secretKeyRef"),
        ({"pod": {"volumes": [{"name": "v", "mountPath": "/v"}]}}, "give exactly one of pvc, configMap, secret and emptyDir"),
        ({"pod": {"volumes": [{"name": "v", "mountPath": "/v", "hostPath": {"path": "/"}}]}}, "hostPath"),
        ({"pod": {"hostNetwork": True}}, "hostNetwork"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_path(plane: ControlPlane, spec: Plain, told: str) -> None:
    with pytest.raises(ClusterError) as refusal:
        apply(plane, quickstart("wrong", **spec))
    assert told in str(refusal.value)


def test_a_name_that_would_make_pods_names_too_long_is_refused(plane: ControlPlane) -> None:
    with pytest.raises(ClusterError, match="at most 52 characters"):
        apply(plane, quickstart("a" * 53))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training": {"seed": 8}}, "a run trains one configuration"),
        ({"output": {"s3": {"uri": "s3://elsewhere/x"}}}, "checkpoints of one run stay in one place"),
        ({"data": None}, "data cannot be added or removed"),
        ({"data": {"s3": {"uri": "s3://datasets/other"}}}, "a run trains on the same data"),
        ({"resumeFrom": {"uri": "s3://checkpoints/other"}}, "resumeFrom cannot be added or removed"),
    ],
)
def test_what_makes_the_run_what_it_is_cannot_be_changed(plane: ControlPlane, change: Plain, told: str) -> None:
    apply(plane, quickstart("fixed"))
    with pytest.raises(ClusterError) as refusal:
        plane.kubectl("patch", "atj", "fixed", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": change}))
    assert told in str(refusal.value)


def test_how_a_place_is_reached_and_how_much_runs_can_be_changed(plane: ControlPlane) -> None:
    apply(plane, quickstart("changed"))
    change = {"output": {"s3": {"secretRef": {"name": "rotated"}}}, "suspend": True, "restart": {"maxRestarts": 9}}
    plane.kubectl("patch", "atj", "changed", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": change}))
    plane.kubectl("scale", "atj/changed", "--replicas=5", "-n", NAMESPACE)
    stored = json.loads(plane.kubectl("get", "atj", "changed", "-n", NAMESPACE, "-o", "json"))["spec"]
    assert (stored["nodes"], stored["suspend"], stored["restart"]["maxRestarts"]) == (5, True, 9)


def test_a_status_whose_figures_happen_to_be_whole_is_accepted(plane: ControlPlane) -> None:
    apply(plane, quickstart("whole"))
    status = {"progress": {"step": 1, "loss": 1.0, "imagesPerSecond": 67.0, "percent": 100.0}, "goodputPercent": 50.0}
    body = json.dumps({"status": status}).replace("67.0", "67")
    plane.kubectl("patch", "atj", "whole", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", body)


def test_an_unquoted_no_means_the_same_to_kubectl(plane: ControlPlane) -> None:
    """The API server has false where the file says no: YAML 1.1."""
    given = quickstart("unquoted")
    given["spec"]["training"].setdefault("optimization", {})["mixed_precision"] = "MIXED"
    text = yaml.safe_dump(given)
    plane.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text.replace("MIXED", "no"))
    stored = json.loads(plane.kubectl("get", "atj", "unquoted", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["training"]["optimization"]["mixed_precision"] is False
    assert AdapterTrainingJob.model_validate(stored).spec.training.optimization.mixed_precision == "no"
    for value in ("true", "fp8"):
        with pytest.raises(ClusterError, match="mixed_precision"):
            plane.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text.replace("MIXED", value))
    with pytest.raises(ClusterError, match=r"spec\.training cannot be changed"):
        plane.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text.replace("MIXED", "bf16"))
