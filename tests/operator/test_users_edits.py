"""What users do to what is not theirs to touch, to names that are ours, and to jobs at the wrong moment."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import MERGE, Refused, path_of
from tests.operator.support.fault_proxy import FaultProxy, fault_proxy
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import (
    SUCCEEDED,
    OnPlane,
    Plain,
    apply_crd,
    condition,
    definition,
    install_crd,
    quick_job,
    serving,
)
from tests.operator.support.planes import Plane, only_on_control_plane


@pytest.fixture(scope="module")
def proxy(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """It does no harm, but shows when the operator lists what there is."""
    with fault_proxy(plane, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def place(plane: Plane, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    variables = {"ADAPTER_OPERATOR_RESYNC_SECONDS": "0.5", "KUBECONFIG": str(proxy.kubeconfig("operator"))}
    with serving(plane, "users-edits", tmp_path_factory.mktemp("users-edits"), variables) as place:
        yield place


def make(place: OnPlane, plural: str, manifest: Plain) -> None:
    place.api.call("POST", path_of(plural, place.namespace), manifest)


def look_again(place: OnPlane, name: str) -> None:
    """What was prevented is tried again after half a minute, or when the job changes."""
    place.patch_job(name, {"metadata": {"labels": {"look": "again"}}})


SERVICE: Plain = {"spec": {"clusterIP": "None", "selector": {"app": "mine"}, "ports": [{"port": 1}]}}
BATCH_JOB: Plain = {
    "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}
}  # fmt: skip
POLICY: Plain = {"spec": {"podSelector": {"matchLabels": {"app": "mine"}}}}


@pytest.mark.parametrize(
    ("plural", "suffix", "manifest"),
    [("services", "", SERVICE), ("jobs", "-1", BATCH_JOB), ("networkpolicies", "", POLICY)],
    ids=["service", "job", "policy"],
)
@pytest.mark.parametrize("is_labelled", [False, True], ids=["plain", "labelled-as-ours"])
def test_what_has_our_name_and_is_not_ours_is_left_alone_and_told(
    place: OnPlane,
    proxy: FaultProxy,
    plural: str,
    suffix: str,
    manifest: Plain,
    is_labelled: bool,  # noqa: FBT001
) -> None:
    name = f"taken-{plural}-{int(is_labelled)}"
    labels = {"adaptertraining.dev/job": name, "adaptertraining.dev/attempt": "1", "app.kubernetes.io/managed-by": "adapter-training-operator"}  # fmt: skip
    make(place, plural, {**manifest, "metadata": {"name": name + suffix, "labels": labels if is_labelled else {}}})
    foreign = place.api.call("GET", path_of(plural, place.namespace, name + suffix))
    if is_labelled and plural == "jobs":
        proxy.until_listed(place)
    life = Life(place, name)
    status = place.wait_reason(name, "NameConflict")
    assert status["state"] == "Pending"
    assert f"{name}{suffix}" in condition(status, "Running")["message"]
    place.wait("an Event", lambda: ("Warning", "NameConflict") in place.events(name))
    now = place.api.call("GET", path_of(plural, place.namespace, name + suffix))
    assert (now["metadata"]["uid"], now["spec"]) == (foreign["metadata"]["uid"], foreign["spec"])
    told = place.job(name)
    proxy.until_listed(place)
    now = place.job(name)
    # Pods come up all the same where only the Service is prevented, and are counted.
    assert (now["status"] | figures(told)) == told["status"], "told once is enough"
    assert place.events(name).count(("Warning", "NameConflict")) == 1
    place.delete(plural, name + suffix, propagationPolicy="Background")
    look_again(place, name)
    place.wait("complete", life.step)
    assert lives.seen(place, name) == lives.UNDISTURBED
    lives.clear(place, name)


def figures(job: Plain) -> Plain:
    """What a status counts."""
    return {"nodes": job["status"].get("nodes")}


def test_pods_that_come_up_while_their_service_is_prevented_are_counted_now_and_then(
    place: OnPlane, proxy: FaultProxy
) -> None:
    name = "counted"
    make(place, "services", {**SERVICE, "metadata": {"name": name}})
    place.create(name)
    place.wait_reason(name, "NameConflict")
    place.wait("pods", lambda: len(place.pods(name, 1)) == 2)
    changes = ("Pending", "Running") * 3
    versions = {place.job(name)["metadata"]["resourceVersion"]}
    for phase in changes:
        for pod in place.pods(name, 1):
            place.set_pod(pod["metadata"]["name"], {"phase": phase})
        proxy.until_listed(place)
        versions.add(place.job(name)["metadata"]["resourceVersion"])
    assert len(versions) < len(changes)
    place.delete("services", name)
    lives.clear(place, name)


@pytest.mark.parametrize("plural", ["services", "networkpolicies"])
def test_what_is_deleted_from_under_a_running_attempt_is_made_anew(place: OnPlane, plural: str) -> None:
    name = f"without-{plural}"
    life = Life(place, name)
    place.wait_state(name, "Running")
    before = place.api.call("GET", path_of(plural, place.namespace, name))
    place.delete(plural, name)
    place.wait("made anew", lambda: place.items_of(name, plural))
    after = place.api.call("GET", path_of(plural, place.namespace, name))
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    assert place.status(name)["attempt"] == 1
    place.wait("complete", life.step)
    assert lives.seen(place, name) == lives.UNDISTURBED
    lives.clear(place, name)


@pytest.mark.parametrize(
    "labels",
    [{"adaptertraining.dev/attempt": "7"}, {"adaptertraining.dev/job": "another"}, {"adaptertraining.dev/job": None}],
    ids=["attempt", "job", "none"],
)
def test_a_pod_whose_labels_were_edited_is_never_left_over(place: OnPlane, proxy: FaultProxy, labels: Plain) -> None:
    name = "relabelled"
    place.create(name)
    place.wait_state(name, "Running")
    pods = [pod["metadata"]["name"] for pod in place.pods(name, 1)]
    place.api.call(
        "PATCH", path_of("pods", place.namespace, pods[1]), {"metadata": {"labels": labels}}, content_type=MERGE
    )
    proxy.until_listed(place)
    place.wait_state(name, "Running")
    attempt = place.status(name)["attempt"]
    assert attempt in {1, 2}, "at most one restart comes of it"
    for pod in place.pods(name, attempt):
        place.set_pod(pod["metadata"]["name"], SUCCEEDED)
    if attempt == 1:
        place.set_pod(pods[1], SUCCEEDED)
    place.wait_state(name, "Complete")
    left = of_job(place, name)
    assert attempt == 1 or not left & set(pods)
    lives.clear(place, name)
    assert not of_job(place, name)


def of_job(place: OnPlane, name: str) -> set[str]:
    """Pods that a job made, whatever their labels are now."""
    return {pod["metadata"]["name"] for pod in place.items("pods") if pod["metadata"]["name"].startswith(f"{name}-")}


def test_pods_and_jobs_that_only_wear_our_labels_are_left_alone(place: OnPlane, proxy: FaultProxy) -> None:
    place.create("worn")
    place.wait_state("worn", "Running")
    labels = {
        "adaptertraining.dev/job": "worn", "adaptertraining.dev/attempt": "1", "adaptertraining.dev/nodes": "2",
        "batch.kubernetes.io/job-completion-index": "0", "app.kubernetes.io/managed-by": "adapter-training-operator",
    }  # fmt: skip
    foreign = json.loads(json.dumps(BATCH_JOB))
    foreign["spec"]["suspend"] = False
    foreign["spec"]["template"]["metadata"] = {"labels": labels}
    make(place, "jobs", {**foreign, "metadata": {"name": "foreign", "labels": labels}})
    make(place, "jobs", {**foreign, "metadata": {"name": "worn-9", "labels": labels}})
    place.wait("their pods", lambda: len(place.items_of("worn", "pods")) == 4)
    pods = place.pods("worn", 1)
    ours = [pod for pod in pods if pod["metadata"]["ownerReferences"][0]["name"] == "worn-1"]
    others = {pod["metadata"]["name"] for pod in pods} - {pod["metadata"]["name"] for pod in ours}
    proxy.until_listed(place)
    assert place.status("worn")["attempt"] == 1
    place.delete("pods", ours[0]["metadata"]["name"], gracePeriodSeconds=0)
    status = place.wait_state("worn", "Running", attempt=2)
    assert (status["attempt"], status["restarts"]["total"]) == (2, 1)
    assert others <= {pod["metadata"]["name"] for pod in place.items("pods")}
    for name in ("foreign", "worn-9"):
        place.delete("jobs", name, propagationPolicy="Background")
    lives.clear(place, "worn")


@pytest.mark.parametrize(
    "edited",
    [
        {"attempt": 1, "state": "Starting", "conditions": []},
        {"attempt": 0, "state": None, "conditions": [], "nodes": None},
        {"state": "Failed", "nodes": {"ready": 9, "active": 9, "failed": 9}},
    ],
    ids=["attempt-back", "emptied", "figures"],
)  # fmt: skip
def test_a_status_that_was_edited_is_put_right_without_a_second_attempt_alive(place: OnPlane, edited: Plain) -> None:
    name = "edited"
    life = Life(place, name)
    place.wait(
        "running again", lambda: life.step() or "again" in life.reached or place.status(name).get("attempt") == 2
    )
    place.wait_state(name, "Running", attempt=2)
    place.patch_job(name, {"status": edited}, "/status")
    place.wait("put right", lambda: place.status(name).get("attempt") == 2 and place.status(name)["state"] in {"Running", "Complete"})  # fmt: skip
    place.wait("complete", life.step)
    end = lives.seen(place, name)
    assert {key: end[key] for key in ("state", "attempt", "objects")} == {
        key: lives.UNDISTURBED[key] for key in ("state", "attempt", "objects")
    }
    assert not [fault for fault in place.history.faults if fault.startswith(name)]
    lives.clear(place, name)


def test_a_job_that_is_deleted_mid_restart_leaves_nothing(place: OnPlane, proxy: FaultProxy) -> None:
    life = Life(place, "deleted")
    place.wait("failed", lambda: life.step() or "failed" in life.reached)
    place.wait_state("deleted", "Restarting", attempt=2)
    lives.clear(place, "deleted")
    proxy.until_listed(place)
    assert not place.items_of("deleted", lives.LEFT)


def test_a_job_that_is_deleted_while_no_operator_runs_leaves_nothing(place: OnPlane) -> None:
    place.create("alone")
    place.wait_state("alone", "Running")
    place.stop()
    lives.clear(place, "alone")
    place.start()


def test_a_namespace_can_be_deleted_while_its_jobs_restart(
    plane: Plane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    variables = {"ADAPTER_OPERATOR_POD_NAMESPACE": "default", "ADAPTER_OPERATOR_LEASE_NAME": "namespace-goes"}
    place = OnPlane(plane, "namespace-goes", tmp_path_factory.mktemp("goes"), variables)
    operator = place.start()
    life = Life(place, "swept")
    place.wait("failed", lambda: life.step() or "failed" in life.reached)
    place.close = place.stop  # type: ignore[method-assign]
    place.api.call("DELETE", f"api/v1/namespaces/{place.namespace}")
    try:
        place.wait("the namespace is gone", lambda: not is_there(place))
        assert operator.poll() is None
    finally:
        place.stop()
        place.history.stop()


def is_there(place: OnPlane) -> bool:
    try:
        place.api.call("GET", f"api/v1/namespaces/{place.namespace}")
    except Refused:
        return False
    return True


@only_on_control_plane
def test_what_makes_the_run_what_it_is_cannot_be_changed_while_it_runs(place: OnPlane, proxy: FaultProxy) -> None:
    place.create("fixed")
    place.wait_state("fixed", "Running")
    with pytest.raises(Refused, match=r"spec\.training") as refused:
        place.patch("fixed", {"training": {"seed": 8}})
    assert refused.value.code == 422
    proxy.until_listed(place)
    assert place.status("fixed")["attempt"] == 1
    lives.clear(place, "fixed")


@only_on_control_plane
def test_what_another_version_stored_is_still_reconciled(place: OnPlane, control_plane: ControlPlane) -> None:
    # Stored under a CRD that knows more and demands less: a later version's, then rolled back.
    crd = json.loads(definition())
    version = crd["spec"]["versions"][0]
    unknown_too = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    # As every version's: a list that was a value as a whole would leave its items without an owner on the way back.
    conditions = {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": unknown_too | {"required": ["type"], "properties": {"type": {"type": "string"}}},
    }  # fmt: skip
    status_schema = unknown_too | {"properties": {"conditions": conditions}}
    version["schema"]["openAPIV3Schema"] = unknown_too | {"properties": {"status": status_schema}}
    apply_crd(control_plane, crd)
    job = quick_job("stored")
    job["spec"]["holdFor"] = "later"
    del job["spec"]["restart"]
    place.wait("served", lambda: accepts(place, job))
    later = {
        "state": "Paused", "attempt": 1, "weather": "fine",
        "conditions": [{"type": "Healthy", "status": "True", "reason": "A", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }  # fmt: skip
    place.apply_status("stored", later)
    install_crd(control_plane)
    place.wait_state("stored", "Running")
    for pod in place.pods("stored", place.status("stored")["attempt"]):
        place.set_pod(pod["metadata"]["name"], SUCCEEDED)
    status = place.wait_state("stored", "Complete")
    assert "Healthy" not in {each["type"] for each in status["conditions"]}
    lives.clear(place, "stored")


def accepts(place: OnPlane, job: Plain) -> bool:
    """The API server takes up a changed CRD a moment later."""
    try:
        make(place, "adaptertrainingjobs", job)
    except Refused:
        return False
    if "holdFor" in place.job(job["metadata"]["name"])["spec"]:
        return True
    lives.clear(place, job["metadata"]["name"])
    return False
