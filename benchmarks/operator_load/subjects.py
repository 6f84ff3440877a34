"""What is put under load: our pods in an Indexed Job that no operator looks after, and ours, of any build; see also peer.py."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from adapter_api.document import read
from adapter_api.job import GROUP, PLURAL, VERSION, AdapterTrainingJob
from adapter_api.names import JOB_LABEL
from adapter_operator.act.manifests import batch_job
from adapter_operator.settings import Settings
from benchmarks.older_build import environment
from tests.cluster.control_plane import ControlPlane
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
Plain = dict[str, Any]

NAMESPACE = "load"
NODES = 4
"""Pods of each job."""
REQUESTS = {"cpu": "10m", "memory": "16Mi"}


class Subject(Protocol):
    """A kind of job, and whoever runs it."""

    collection: str
    """Path of the jobs in the API."""
    pod_label: str
    """Label of a pod that holds its job's name."""
    users: tuple[str, ...]
    """Who the operator is in the audit log; empty: there is none."""

    def install(self, plane: ControlPlane) -> None:
        """Everything that jobs of this kind need."""
        ...

    def pids(self) -> list[int]:
        """Of the operator's processes on this machine."""
        ...

    def stop(self) -> None:
        """Ends what was installed and runs outside the cluster."""
        ...

    def manifest(self, name: str) -> Plain:
        """A job of NODES pods."""
        ...

    def is_running(self, job: Plain) -> bool:
        """Whether this object says that all pods of its job run."""
        ...


class Operator(Subject, Protocol):
    """A subject with processes of its own."""

    def start(self) -> None:
        """Starts them, for the first time or again."""
        ...

    def wait_until_ready(self) -> None:
        """Raises RuntimeError when they do not get ready."""
        ...

    def kill(self) -> None:
        """As by SIGKILL."""
        ...


def indexed_job(retries: int) -> Plain:
    """The specification of a batch/v1 Job of NODES pods with one container each."""
    container = {
        "name": "node", "image": "load.invalid/none:1", "command": ["train"], "resources": {"requests": REQUESTS},
    }  # fmt: skip
    return {
        "completionMode": "Indexed", "completions": NODES, "parallelism": NODES, "backoffLimit": retries,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }  # fmt: skip


def account(plane: ControlPlane, namespace: str, name: str) -> Path:
    """A kubeconfig of a service account that may do everything; the namespace is made if it is missing."""
    made = plane.kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "json")
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=made)
    plane.kubectl("create", "serviceaccount", name, "-n", namespace)
    whom = f"--serviceaccount={namespace}:{name}"
    plane.kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", whom)
    token = plane.kubectl("create", "token", name, "-n", namespace, "--duration=10h").strip()
    config = json.loads(plane.kubeconfig.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": token}
    file = plane.folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(config), encoding="utf-8")
    return file


def is_ready(port: int) -> bool:
    """Whether a program of this machine says so on this port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_until(holds: Callable[[], bool], running: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    """Returns when it holds.

    Raises:
        RuntimeError: a process has ended, or a minute has passed; with the ends of the logs.
    """
    for _ in range(1200):
        if holds():
            return
        if any(process.poll() is not None for process in running):
            break
        time.sleep(0.05)
    said = "\n".join(log.read_text(encoding="utf-8")[-3000:] for log in logs)
    raise RuntimeError(f"it did not get ready:\n{said}")


def training_job(name: str) -> Plain:
    """The job on digits, on NODES nodes; every build that is measured takes it."""
    job: Plain = json.loads(json.dumps(read(ROOT / "configs" / "digits.yaml").data))
    job["spec"]["data"].pop("folder")  # of a run without a cluster, and unknown to older builds
    job["spec"] |= {"nodes": NODES, "resources": {"requests": REQUESTS}}
    return {**job, "metadata": {"name": name}}


class IndexedJob:
    """The floor: the very Job and pods of ours, and nobody who looks after them."""

    collection = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    pod_label = JOB_LABEL
    users: tuple[str, ...] = ()

    def install(self, plane: ControlPlane) -> None:
        """Nothing: the control plane has it."""

    def pids(self) -> list[int]:
        """None."""
        return []

    def stop(self) -> None:
        """Nothing of it runs outside."""

    def manifest(self, name: str) -> Plain:
        """See Subject."""
        raw = training_job(name)
        raw["metadata"] |= {"namespace": NAMESPACE, "uid": "00000000-0000-0000-0000-000000000000"}
        job = batch_job(AdapterTrainingJob.model_validate(raw), 1, datetime.now(UTC), f"{name}-training", Settings())
        return {**job, "metadata": {"name": name, "labels": job["metadata"]["labels"]}}

    def is_running(self, job: Plain) -> bool:
        """See Subject."""
        return int(job.get("status", {}).get("ready", 0)) >= NODES


class Ours:
    """An AdapterTrainingJob, and the operator as a process of this machine with a service account's token.

    Args:
        root: Of the build that is measured.
    """

    collection = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{PLURAL}"
    pod_label = f"{GROUP}/job"
    users: tuple[str, ...] = (f"system:serviceaccount:{NAMESPACE}:operator",)

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._running: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._log = Path(os.devnull)

    def install(self, plane: ControlPlane) -> None:
        """The CRD, an account that may do everything, and the operator with its default settings."""
        plane.kubectl("apply", "--server-side", "-f", str(self._root / "crds" / "adaptertrainingjobs.yaml"))
        plane.wait_for_crd(f"{PLURAL}.{GROUP}")
        self._log = plane.folder / "operator.log"
        self._environment = {
            **environment(self._root),
            "KUBECONFIG": str(account(plane, NAMESPACE, "operator")),
            "ADAPTER_OPERATOR_POD_NAMESPACE": NAMESPACE,
            "ADAPTER_OPERATOR_HTTP_PORT": str(free_port()),
        }
        self.start()
        self.wait_until_ready()

    def start(self) -> None:
        """Starts the operator, for the first time or again."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "adapter_operator"], env=self._environment, cwd=self._root, stderr=log
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The operator; raises RuntimeError before it was started."""
        if self._running is None:
            raise RuntimeError("the operator has not been started")
        return self._running

    def pids(self) -> list[int]:
        """Of the one process, once it was started."""
        return [] if self._running is None else [self._running.pid]

    def kill(self) -> None:
        """As by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends the operator, if it was started."""
        if self._running is not None:
            self._running.terminate()
            self._running.wait(30)

    def manifest(self, name: str) -> Plain:
        """See Subject."""
        return training_job(name)

    def is_running(self, job: Plain) -> bool:
        """See Subject."""
        conditions = job.get("status", {}).get("conditions") or ()
        return any(each["type"] == "Running" and each["status"] == "True" for each in conditions)

    def wait_until_ready(self) -> None:
        """Raises RuntimeError when it does not get ready."""
        port = int(self._environment["ADAPTER_OPERATOR_HTTP_PORT"])
        wait_until(lambda: is_ready(port), [self.process], [self._log])
