"""The operator as a process on a control plane whose pods KWOK plays, and what a test does to jobs and pods there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapter_api.document import read
from tests.cluster.control_plane import ControlPlane
from tests.trainer.runs import free_port

REPOSITORY = Path(__file__).parents[2]
Plain = dict[str, Any]


class OnPlane:
    """One namespace of a control plane, with the CRD installed."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds" / "adaptertrainingjobs.yaml")
        )
        plane.kubectl(
            "wait",
            '--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True',
            "crd/adaptertrainingjobs.adaptertraining.dev",
        )
        plane.kubectl("create", "namespace", namespace)
        plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def start(self, module: str = "adapter_operator", **variables: str) -> subprocess.Popen[bytes]:
        """An operator of this namespace only."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KUBECONFIG": str(self.plane.kubeconfig),
            "ADAPTER_OPERATOR_WATCH_NAMESPACE": self.namespace,
            "ADAPTER_OPERATOR_POD_NAMESPACE": self.namespace,
            "ADAPTER_OPERATOR_POD_NAME": "one",
            "ADAPTER_OPERATOR_HTTP_PORT": str(free_port()),
            "ADAPTER_OPERATOR_LOG_FORMAT": "text",
            **variables,
        }
        with (self.folder / "operator.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", module], env=environment, cwd=REPOSITORY, stderr=log)
        self.running.append(process)
        return process

    def stop(self) -> None:
        """Ends all operators that still run."""
        for process in self.running:
            process.kill()
            process.wait()

    def create(self, name: str, nodes: int = 2, **spec: Any) -> None:
        """The quickstart, with restarts that wait for nothing."""
        job = json.loads(json.dumps(read(REPOSITORY / "configs" / "quickstart.yaml").data))
        job["metadata"]["name"] = name
        job["spec"] |= {"nodes": nodes, "restart": {"maxRestarts": 3, "backoffSeconds": 0}, **spec}
        job["spec"]["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
        self.kubectl("create", "-f", "-", stdin=json.dumps(job))

    def patch(self, name: str, spec: Plain) -> None:
        self.kubectl("patch", "atj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def status(self, name: str) -> Plain:
        found: Plain = json.loads(self.kubectl("get", "atj", name, "-o", "json")).get("status") or {}
        return found

    def items(self, kinds: str) -> list[Plain]:
        found: list[Plain] = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return found

    def set_pod(self, name: str, status: Plain) -> None:
        """What a kubelet would say of a pod."""
        self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def wait(self, what: str, holds: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, (
                f"not {what}\n{self.kubectl('get', 'atj,pods,jobs', '-o', 'wide')}\n{self.log()}"
            )
            time.sleep(0.1)

    def wait_state(self, name: str, state: str, attempt: int = 1) -> Plain:
        def reached() -> bool:
            status = self.status(name)
            return status.get("state") == state and status.get("attempt", 0) >= attempt

        self.wait(f"{name} {state} in attempt {attempt}", reached)
        return self.status(name)

    def log(self) -> str:
        return (self.folder / "operator.log").read_text(encoding="utf-8")[-4000:]


PREEMPTED: Plain = {
    "phase": "Failed",
    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
    "containerStatuses": [
        {
            "name": "trainer", "image": "any", "imageID": "any", "ready": False, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "finishedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}  # fmt: skip
"""The status of a pod whose place another one took."""
SUCCEEDED: Plain = {"phase": "Succeeded"}
