"""What is put under load: a plain Indexed Job that no operator looks after, and ours."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from adapter_api.document import read
from adapter_api.job import GROUP, PLURAL, VERSION
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.trainer.runs import free_port

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

    def stop(self) -> None:
        """Ends what was installed and runs outside the cluster."""
        ...

    def manifest(self, name: str) -> Plain:
        """A job of NODES pods."""
        ...

    def is_running(self, job: Plain) -> bool:
        """Whether the job itself says that all its pods run."""
        ...


class IndexedJob:
    """The floor: batch/v1, one container in each pod."""

    collection = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    pod_label = "batch.kubernetes.io/job-name"
    users: tuple[str, ...] = ()

    def install(self, plane: ControlPlane) -> None:
        """Nothing: the control plane has it."""

    def stop(self) -> None:
        """Nothing of it runs outside."""

    def manifest(self, name: str) -> Plain:
        """See Subject."""
        container = {
            "name": "node", "image": "load.invalid/none:1", "command": ["train"], "resources": {"requests": REQUESTS},
        }  # fmt: skip
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {
                "completionMode": "Indexed", "completions": NODES, "parallelism": NODES, "backoffLimit": 6,
                "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
            },
        }  # fmt: skip

    def is_running(self, job: Plain) -> bool:
        """See Subject."""
        return int(job.get("status", {}).get("ready", 0)) >= NODES


class Ours:
    """An AdapterTrainingJob, and the operator as a process of this machine with a service account's token."""

    collection = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{PLURAL}"
    pod_label = f"{GROUP}/job"
    users: tuple[str, ...] = (f"system:serviceaccount:{NAMESPACE}:operator",)

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._log = Path(os.devnull)
        self._job = json.loads(json.dumps(read(ROOT / "configs" / "quickstart.yaml").data))
        self._job["spec"] |= {"nodes": NODES, "resources": {"requests": REQUESTS}}

    def install(self, plane: ControlPlane) -> None:
        """The CRD, an account that may do everything, and the operator with its default settings."""
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "adaptertrainingjobs.yaml"))
        self._wait_until_served(plane)
        plane.kubectl("create", "serviceaccount", "operator", "-n", NAMESPACE)
        account = f"--serviceaccount={NAMESPACE}:operator"
        plane.kubectl("create", "clusterrolebinding", "operator", "--clusterrole=cluster-admin", account)
        token = plane.kubectl("create", "token", "operator", "-n", NAMESPACE, "--duration=10h").strip()
        config = json.loads(plane.kubeconfig.read_text(encoding="utf-8"))
        config["users"][0]["user"] = {"token": token}
        kubeconfig = plane.folder / "operator.kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        self._log = plane.folder / "operator.log"
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "ADAPTER_OPERATOR_POD_NAMESPACE": NAMESPACE,
            "ADAPTER_OPERATOR_HTTP_PORT": str(free_port()),
        }
        self.start()
        self._wait_until_ready()

    def start(self) -> None:
        """Starts the operator, for the first time or again."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "adapter_operator"], env=self._environment, cwd=ROOT, stderr=log
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The operator; raises RuntimeError before it was started."""
        if self._running is None:
            raise RuntimeError("the operator has not been started")
        return self._running

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
        """The quickstart on NODES nodes."""
        return {**self._job, "metadata": {"name": name}}

    def is_running(self, job: Plain) -> bool:
        """See Subject."""
        conditions = job.get("status", {}).get("conditions") or ()
        return any(each["type"] == "Running" and each["status"] == "True" for each in conditions)

    def log(self) -> str:
        """What the operator has said."""
        return self._log.read_text(encoding="utf-8")

    def _wait_until_served(self, plane: ControlPlane) -> None:
        """Raises ClusterError when the CRD comes to nothing. `kubectl wait` fails on one that has no status yet."""
        for attempt in range(300):
            try:
                plane.kubectl("get", "--raw", self.collection)
                return
            except ClusterError:
                if attempt == 299:
                    raise
                time.sleep(0.1)

    def _wait_until_ready(self) -> None:
        """Raises RuntimeError when it does not get ready."""
        url = f"http://127.0.0.1:{self._environment['ADAPTER_OPERATOR_HTTP_PORT']}/readyz"
        for _ in range(600):
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError(f"the operator did not get ready:\n{self.log()[-3000:]}")
