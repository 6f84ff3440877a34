"""The peer under load: Kubeflow Trainer with JobSet, both as processes of this machine, their webhooks reached by address."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.operator_load.subjects import NAMESPACE, NODES, account, indexed_job, is_ready, wait_until
from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.controllers import Plain, by_address, listed, serving_certificate, source

_SERVING = Path("/tmp/k8s-webhook-server/serving-certs")  # noqa: S108 - compiled into both programs
_JOBSET, _TRAINER = ("jobset-system", "jobset"), ("kubeflow-system", "trainer")
_KINDS = (
    "jobsets.jobset.x-k8s.io", "trainjobs.trainer.kubeflow.org", "trainingruntimes.trainer.kubeflow.org",
    "clustertrainingruntimes.trainer.kubeflow.org",
)  # fmt: skip
_RUNTIME = "load"


class Kubeflow:
    """TrainJobs, each of which becomes a JobSet, which becomes an Indexed Job. Default settings, without leader election."""

    collection = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
    pod_label = "jobset.sigs.k8s.io/jobset-name"
    users = tuple(f"system:serviceaccount:{namespace}:{name}" for namespace, name in (_JOBSET, _TRAINER))

    def __init__(self) -> None:
        self._commands: list[tuple[list[str], Path]] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_ready: Callable[[], bool] = lambda: False

    def install(self, plane: ControlPlane) -> None:
        """CRDs, webhooks, both programs, and the runtime that the jobs name.

        Raises:
            RuntimeError: one of them did not get ready, or its folder of certificates is somebody else's.
        """
        jobset = source("jobset", "sigs.k8s.io/jobset") / "config" / "components"
        trainer = source("kubeflow_trainer", "github.com/kubeflow/trainer/v2") / "manifests" / "base"
        crds = [*(jobset / "crd" / "bases").glob("*.yaml"), *(trainer / "crds").glob("trainer.*.yaml")]
        for crd in crds:
            plane.kubectl("apply", "--server-side", "-f", str(crd))
        for name in _KINDS:
            plane.wait_for_crd(name)
        bundle = _certificate(plane.folder / "webhooks")
        accounts = [account(plane, *_JOBSET), account(plane, *_TRAINER)]
        plane.kubectl("create", "secret", "generic", "jobset-webhook-server-cert", "-n", _JOBSET[0])
        plane.kubectl("create", "secret", "generic", "kubeflow-trainer-webhook-cert", "-n", _TRAINER[0])
        ports = free_ports(6)
        hooks, probes, metrics = ports[:2], ports[2:4], ports[4:]
        names = {
            "Mutating": "jobset-mutating-webhook-configuration",
            "Validating": "jobset-validating-webhook-configuration",
        }
        own = {"Mutating": "defaulter.trainer.kubeflow.org", "Validating": "validator.trainer.kubeflow.org"}
        register = [
            *by_address(jobset / "webhook" / "manifests.yaml", names, hooks[0], bundle),
            *by_address(trainer / "webhook" / "manifests.yaml", own, hooks[1], bundle),
        ]
        for webhook in (webhook for each in register for webhook in each["webhooks"]):
            if webhook["clientConfig"]["url"].endswith("v1-pod"):  # as the project's own kustomization has it
                webhook["objectSelector"] = {"matchExpressions": [{"key": self.pod_label, "operator": "Exists"}]}
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=listed(register))
        own_settings: tuple[Plain, Plain] = (
            {"apiVersion": "config.jobset.x-k8s.io/v1alpha1", "internalCertManagement": {"enable": True}},
            {"apiVersion": "config.trainer.kubeflow.org/v1alpha1", "certManagement": {"enable": True}},
        )
        self._commands = []
        for number, program in enumerate(("jobset", "kubeflow-trainer")):
            config = plane.folder / f"{program}.json"
            config.write_text(json.dumps({
                **own_settings[number],
                "kind": "Configuration",
                "leaderElection": {"leaderElect": False},
                "webhook": {"host": "127.0.0.1", "port": hooks[number]},
                "health": {"healthProbeBindAddress": f"127.0.0.1:{probes[number]}"},
                "metrics": {"bindAddress": f"127.0.0.1:{metrics[number]}"},
            }), encoding="utf-8")  # fmt: skip
            command = [str(plane.program(program)), f"--config={config}", f"--kubeconfig={accounts[number]}"]
            self._commands.append((command, plane.folder / f"{program}.log"))
        self._is_ready = lambda: all(map(is_ready, probes))
        self.start()
        self.wait_until_ready()
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(_runtime()))

    def start(self) -> None:
        """Starts both, for the first time or again."""
        for command, log in self._commands:
            with log.open("ab") as file:
                self._running.append(subprocess.Popen(command, stdout=file, stderr=file))

    def wait_until_ready(self) -> None:
        """Raises RuntimeError when they do not get ready."""
        wait_until(self._is_ready, self._running, [log for _, log in self._commands])

    def pids(self) -> list[int]:
        """Of both."""
        return [each.pid for each in self._running]

    def kill(self) -> None:
        """As by SIGKILL."""
        for each in self._running:
            each.kill()
            each.wait()
        self._running.clear()

    def stop(self) -> None:
        """Ends both, and removes the folder that is compiled into them."""
        self.kill()
        if self._commands:
            shutil.rmtree(_SERVING.parent, ignore_errors=True)

    def manifest(self, name: str) -> Plain:
        """See Subject."""
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": name},
            "spec": {"runtimeRef": {"name": _RUNTIME}, "trainer": {"numNodes": NODES}},
        }  # fmt: skip

    def is_running(self, job: Plain) -> bool:
        """See Subject."""
        return any(int(each["ready"]) >= 1 for each in job.get("status", {}).get("jobsStatus") or ())


def _runtime() -> Plain:
    template = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": indexed_job(retries=0),
    }
    jobs = [{"name": "node", "replicas": 1, "template": template}]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime", "metadata": {"name": _RUNTIME},
        "spec": {
            "mlPolicy": {"numNodes": NODES, "torch": {"numProcPerNode": 1}},
            "template": {"spec": {"failurePolicy": {"maxRestarts": 10}, "replicatedJobs": jobs}},
        },
    }  # fmt: skip


def _certificate(authority: Path) -> bytes:
    """One for both, where they look for it; returns who signed it."""
    if _SERVING.parent.exists():
        raise RuntimeError(f"{_SERVING.parent} is there already: end what uses it, or remove it")
    return serving_certificate(authority, _SERVING)
