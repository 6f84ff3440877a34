"""The operator as a process on a control plane whose pods KWOK plays, or on a stand-in; what a test does to jobs and pods there."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from adapter_api.job import API_VERSION, KIND
from adapter_operator.cluster import FIELD_MANAGER
from tests.cluster.control_plane import ControlPlane
from tests.operator.support.api_server import APPLY, MERGE, ApiServer, Refused, path_of
from tests.operator.support.planes import Plane
from tests.operator.support.pod_history import PodHistory
from tests.support import preloaded
from tests.support.jobs import quickstart
from tests.support.ports import free_port
from tests.support.preloaded import Program
from tests.support.repository import CRD, REPOSITORY
from tests.support.waiting import wait_until

Plain = dict[str, Any]
Process = Program | subprocess.Popen[bytes]
JOB_LABEL = "adaptertraining.dev/job"
DEFINITION = "apis/apiextensions.k8s.io/v1/customresourcedefinitions/adaptertrainingjobs.adaptertraining.dev"


class OnPlane:
    """One namespace of a plane, with the CRD installed.

    Args:
        plane: Runs.
        namespace: Made here.
        folder: For logs.
        variables: Of every operator that is started.
    """

    def __init__(self, plane: Plane, namespace: str, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.variables = dict(variables or {})
        self.running: list[Process] = []
        self.api = ApiServer(plane)
        install_crd(plane)
        self.api.call("POST", "api/v1/namespaces", {"metadata": {"name": namespace}})
        # A pod is refused as long as its namespace has none.
        account = f"api/v1/namespaces/{namespace}/serviceaccounts/default"
        wait_until(f"{namespace} has a service account", lambda: self.api.has(account))
        self.history = PodHistory(self.api, namespace)

    def start(self, module: str = "adapter_operator", *, is_preloaded: bool = True, **variables: str) -> Process:
        """An operator of this namespace only; one that is not preloaded imports all that it needs anew, as in a cluster."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KUBECONFIG": str(self.plane.kubeconfig),
            "ADAPTER_OPERATOR_WATCH_NAMESPACE": self.namespace,
            "ADAPTER_OPERATOR_POD_NAMESPACE": self.namespace,
            "ADAPTER_OPERATOR_POD_NAME": "one",
            "ADAPTER_OPERATOR_HTTP_PORT": str(free_port()),
            "ADAPTER_OPERATOR_LOG_FORMAT": "text",
            **self.variables,
            **variables,
        }
        with (self.folder / "operator.log").open("ab") as log:
            process: Process
            if is_preloaded:
                process = preloaded.start(module, environment=environment, stderr=log.fileno())
            else:
                process = subprocess.Popen([sys.executable, "-m", module], env=environment, cwd=REPOSITORY, stderr=log)
        self.running.append(process)
        return process

    def stop(self) -> None:
        """Ends all operators that still run."""
        for process in self.running:
            process.kill()
            process.wait()
        self.running.clear()

    def close(self) -> None:
        """Ends all, and removes the namespace."""
        self.stop()
        self.history.stop()
        self.api.call("DELETE", f"api/v1/namespaces/{self.namespace}")

    def create(self, name: str, nodes: int = 2, **spec: Any) -> None:
        """The quickstart, with restarts that wait for nothing."""
        self.api.call("POST", path_of("adaptertrainingjobs", self.namespace), quick_job(name, nodes, **spec))

    def patch(self, name: str, spec: Plain) -> None:
        self.patch_job(name, {"spec": spec})

    def patch_job(self, name: str, change: Plain, part: str = "") -> None:
        """A merge patch of the job, or of a subresource."""
        path = path_of("adaptertrainingjobs", self.namespace, name) + part
        self.api.call("PATCH", path, change, content_type=MERGE)

    def apply_status(self, name: str, status: Plain) -> None:
        """What an operator of another version would have written: fields that it sets are its own."""
        path = path_of("adaptertrainingjobs", self.namespace, name) + "/status"
        job = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "status": status}
        options = {"fieldManager": FIELD_MANAGER, "force": "true"}
        self.api.call("PATCH", path, job, query=options, content_type=APPLY)

    def job(self, name: str) -> Plain:
        return self.api.call("GET", path_of("adaptertrainingjobs", self.namespace, name))

    def status(self, name: str) -> Plain:
        found: Plain = self.job(name).get("status") or {}
        return found

    def items(self, plurals: str) -> list[Plain]:
        """Objects of this namespace, of one or several kinds."""
        return [
            {"kind": plural, **item}
            for plural in plurals.split(",")
            for item in self.api.objects(plural, self.namespace)
        ]

    def items_of(self, name: str, plurals: str) -> list[Plain]:
        """Those that are labelled as a job's."""
        return [each for each in self.items(plurals) if (each["metadata"].get("labels") or {}).get(JOB_LABEL) == name]

    def pods(self, name: str, attempt: int) -> list[Plain]:
        """A job's pods of one attempt, by index."""
        found = [
            pod
            for pod in self.items_of(name, "pods")
            if pod["metadata"]["labels"]["adaptertraining.dev/attempt"] == str(attempt)
        ]
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))

    def set_pod(self, name: str, status: Plain) -> None:
        """What a kubelet would say of a pod."""
        path = path_of("pods", self.namespace, name) + "/status"
        self.api.call("PATCH", path, {"status": status}, content_type=MERGE)

    def delete(self, plural: str, name: str, **options: Any) -> None:
        """An object; what is gone already is no fault."""
        try:
            self.api.call("DELETE", path_of(plural, self.namespace, name), options or None)
        except Refused as error:
            if error.code != 404:
                raise

    def events(self, name: str) -> list[tuple[str, str]]:
        """Type and reason of the Events about a job."""
        return [
            (event["type"], event["reason"])
            for event in self.items("events")
            if event["involvedObject"].get("name") == name
            and event["involvedObject"]["kind"] == "AdapterTrainingJob"
        ]  # fmt: skip

    def wait(self, what: str, holds: Callable[[], object], seconds: float = 240) -> None:
        """Until something holds; the message shows what is in the namespace and the operator's log."""
        wait_until(what, holds, seconds, state=self.describe, pause=0.05)

    def describe(self) -> str:
        """What there is, and the end of the operator's log."""
        found = self.items("adaptertrainingjobs,jobs,pods")
        lines = [
            f"{each['kind']} {each['metadata']['name']}: {json.dumps(each.get('status'))[:1000]}" for each in found
        ]
        return "\n".join([*lines, self.log()])

    def wait_state(self, name: str, state: str, attempt: int = 1, seconds: float = 240) -> Plain:
        def reached() -> bool:
            status = self.status(name)
            return status.get("state") == state and status.get("attempt", 0) >= attempt

        self.wait(f"{name} {state} in attempt {attempt}", reached, seconds)
        return self.status(name)

    def wait_reason(self, name: str, reason: str, seconds: float = 240) -> Plain:
        """Until the condition Running has this reason; returns the status."""
        self.wait(f"{name} {reason}", lambda: condition(self.status(name), "Running").get("reason") == reason, seconds)
        return self.status(name)

    def log(self) -> str:
        file = self.folder / "operator.log"
        return file.read_text(encoding="utf-8")[-4000:] if file.exists() else ""


class OnControlPlane(OnPlane):
    """The same on a real control plane only, where there is kubectl."""

    def __init__(
        self, plane: ControlPlane, namespace: str, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(plane, namespace, folder, variables)
        self.control_plane = plane

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.control_plane.kubectl("-n", self.namespace, *arguments, stdin=stdin)


@contextmanager
def serving(
    plane: Plane, namespace: str, folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[OnPlane]:
    """A namespace with one operator, for as long as the block; arguments are OnPlane's."""
    place = OnPlane(plane, namespace, folder, variables)
    try:
        place.start()
        yield place
    finally:
        place.close()


@functools.cache
def definition() -> str:
    """The CRD as it is checked in, as JSON."""
    return json.dumps(yaml.load(CRD.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def install_crd(plane: Plane) -> None:
    """The CRD as it is checked in, served."""
    apply_crd(plane, json.loads(definition()))


def apply_crd(plane: Plane, crd: Plain) -> None:
    """A CRD of AdapterTrainingJobs, served: as `kubectl apply --server-side --force-conflicts` would."""
    api = ApiServer(plane)
    api.call("PATCH", DEFINITION, crd, query={"fieldManager": "kubectl", "force": "true"}, content_type=APPLY)
    wait_until("the CRD is established", lambda: _is_established(api))


def _is_established(api: ApiServer) -> bool:
    conditions = (api.call("GET", DEFINITION).get("status") or {}).get("conditions") or ()
    return any((each["type"], each["status"]) == ("Established", "True") for each in conditions)


@contextmanager
def without_schema(plane: Plane) -> Iterator[None]:
    """While it lasts, the API server stores jobs whatever stands in them, as under another version's CRD."""
    crd = json.loads(definition())
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = crd["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"] = anything
    del version["subresources"]["scale"]  # insists on a number of nodes
    apply_crd(plane, crd)
    api = ApiServer(plane)
    # The API server takes up a changed CRD a moment later.
    try:
        wait_until("anything is stored", lambda: _stores_anything(api))
        yield
    finally:
        install_crd(plane)
        wait_until("the schema is back", lambda: not _stores_anything(api))


def _stores_anything(api: ApiServer) -> bool:
    job = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "anything"}, "spec": "anything"}
    try:
        api.call("POST", path_of("adaptertrainingjobs", "default"), job, query={"dryRun": "All"})
    except Refused:
        return False
    return True


def quick_job(name: str, nodes: int = 2, **spec: Any) -> Plain:
    """The quickstart under another name, small, with restarts that wait for nothing."""
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    return quickstart(
        name, **{"nodes": nodes, "restart": {"maxRestarts": 3, "backoffSeconds": 0}, "resources": small, **spec}
    )


def condition(status: Plain, kind: str) -> Plain:
    """A condition of a status; empty if there is none."""
    return next((each for each in status.get("conditions") or () if each["type"] == kind), {})


def ended(code: int, reason: str = "Error", message: str = "") -> Plain:
    """The status of a pod whose trainer has ended."""
    terminated = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}
    trainer = {
        "name": "trainer", "image": "any", "imageID": "any", "ready": False, "restartCount": 0,
        "state": {"terminated": terminated},
    }  # fmt: skip
    return {"phase": "Failed", "containerStatuses": [trainer]}


def disrupted(reason: str) -> Plain:
    """The status of a pod that the cluster has ended."""
    return {**ended(137), "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


PREEMPTED: Plain = disrupted("PreemptionByScheduler")
"""The status of a pod whose place another one took."""
SUCCEEDED: Plain = {"phase": "Succeeded"}
