"""The cluster as the tests see it: installs, applies, waits, and does what goes wrong in clusters."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.exceptions import BotoCoreError, ClientError

from adapter_api.document import read
from demo import digits
from tests.cluster import images
from tests.cluster.errors import ClusterError
from tests.cluster.kubelet_cluster import KubeletCluster
from tests.cluster.namespaces import NODE_ADDRESS
from tests.support.repository import CHART, DIGITS
from tests.support.waiting import wait_until

SYSTEM, NAMESPACE, RELEASE = "ato-system", "e2e", "ato"
OPERATOR = f"{RELEASE}-adapter-training-operator"
STORE_URL = f"http://{NODE_ADDRESS}:30833"
INSIDE = {
    "endpointURL": f"http://s3.{NAMESPACE}.svc.cluster.local:8333",
    "region": "us-east-1",
    "secretRef": {"name": "s3-credentials"},
}
USER: dict[str, Any] = {"aws_access_key_id": "e2e", "aws_secret_access_key": "e2e-secret", "region_name": "us-east-1"}
PATIENCE = 240.0

Plain = dict[str, Any]


class World:
    """One cluster for all tests of a session; jobs have names of their own."""

    def __init__(self, cluster: KubeletCluster, folder: Path) -> None:
        self._cluster = cluster
        self.kubeconfig = cluster.control_plane.kubeconfig
        self._loaded_file = folder / "loaded-images.json"
        self.s3: Any = boto3.client("s3", endpoint_url=STORE_URL, **USER)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl as a user who may do everything, in the tests' namespace unless the arguments name one."""
        names_one = any(each in {"-n", "-A"} for each in arguments)
        namespace = () if names_one else ("-n", NAMESPACE)
        return self._cluster.control_plane.kubectl(*namespace, *arguments, stdin=stdin)

    def load(self, built: dict[str, str]) -> None:
        """Gives the images to the node, unless it has them."""
        loaded = json.loads(self._loaded_file.read_text()) if self._loaded_file.exists() else {}
        for name, identity in built.items():
            if loaded.get(name) == identity:
                continue
            with tempfile.TemporaryDirectory(dir=self._loaded_file.parent) as folder:
                file = Path(folder) / "image.tar"
                images.archive(name, file)
                self._cluster.node.load(file)
            loaded[name] = identity
            self._loaded_file.write_text(json.dumps(loaded))

    def install(self) -> None:
        """The chart, the S3 server and its data."""
        values = [
            f"image.repository={images.OPERATOR.rpartition(':')[0]}", "image.tag=test", "image.pullPolicy=Never",
            f"trainer.image={images.TRAINER}", "trainer.pullPolicy=IfNotPresent", "operator.progressSeconds=1",
        ]  # fmt: skip
        chart = str(CHART)
        self.helm(
            "upgrade", "--install", RELEASE, chart, "-n", SYSTEM, "--create-namespace", "--set", ",".join(values),
            "--wait", "--timeout", "3m",
        )  # fmt: skip
        self.kubectl("rollout", "restart", "deployment", "-n", SYSTEM)  # the tag stays when the image changes
        for name in (OPERATOR, f"{OPERATOR}-webhook"):
            self.kubectl("rollout", "status", f"deployment/{name}", "-n", SYSTEM, "--timeout=120s")
        namespace = {
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }  # fmt: skip
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-credentials"},
            "stringData": {"AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": "e2e-secret"},
        }  # fmt: skip
        # What an earlier session has left would be taken for this one's.
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
        self.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
        self.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        self.kubectl("apply", "-f", str(Path(__file__).with_name("store.yaml")))
        self.kubectl("rollout", "status", "deployment/s3", "--timeout=60s")
        self._put_data()

    def _put_data(self) -> None:
        # kube-proxy learns of a pod a moment after the Deployment calls it ready.
        self.wait("the S3 server answers", self._store_answers, 60)
        names = {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}
        if "datasets" in names:
            return
        self.s3.create_bucket(Bucket="datasets")
        with tempfile.TemporaryDirectory() as folder:
            everything = digits.load()[0]
            digits.write(Path(folder), digits.Digits(everything.images[:300], everything.labels[:300]))
            for file in Path(folder).rglob("*"):
                if file.is_file():
                    self.s3.upload_file(str(file), "datasets", f"digits/{file.relative_to(folder).as_posix()}")

    def _store_answers(self) -> bool:
        try:
            self.s3.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def helm(self, *arguments: str) -> str:
        """Helm, with the cluster's kubeconfig."""
        environment = {**os.environ, "KUBECONFIG": str(self._cluster.control_plane.kubeconfig)}
        program = str(self._cluster.control_plane.program("helm"))
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def job(self, name: str, steps: int = 40, save_steps: int = 10, **spec: Any) -> Plain:
        """The job on digits, small enough to end in a minute, with data and output in the cluster's S3 server."""
        job: Plain = json.loads(json.dumps(read(DIGITS).data))
        job["metadata"]["name"] = name
        training = job["spec"]["training"]
        training["optimization"] |= {"max_train_steps": steps, "train_batch_size": 8}
        training["checkpoint"]["save_steps"] = save_steps
        training["logging"] = {"log_steps": 1}
        training.pop("sampling", None)
        job["spec"] |= {
            "data": {"s3": {"uri": "s3://datasets/digits", **INSIDE}},
            "output": {"s3": {"uri": f"s3://checkpoints/{name}", **INSIDE}},
            "restart": {"maxRestarts": 2, "backoffSeconds": 1},
            "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
            "terminationGracePeriodSeconds": 60,
            "pod": {"env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
            **spec,
        }
        return job

    def apply(self, job: Plain) -> str:
        """Applies it and returns its name."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(job))
        return str(job["metadata"]["name"])

    def patch(self, name: str, spec: Plain) -> None:
        """Changes a job's specification."""
        self.kubectl("patch", "atj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def status(self, name: str) -> Plain:
        """What the operator says of a job."""
        found: Plain = json.loads(self.kubectl("get", "atj", name, "-o", "json")).get("status") or {}
        return found

    def pods(self, name: str) -> list[Plain]:
        """A job's pods, by attempt and index."""
        found = json.loads(self.kubectl("get", "pods", "-l", f"adaptertraining.dev/job={name}", "-o", "json"))["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def wait(self, what: str, holds: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Until something holds; says what it waited for when it does not."""
        wait_until(what, holds, seconds, state=self.describe, pause=0.5)

    def wait_step(self, name: str, step: int, attempt: int = 1) -> None:
        """Until a job's attempt has made some steps; not longer than it may still make any."""

        def reached() -> bool:
            status = self.status(name)
            now: int = (status.get("progress") or {}).get("step", 0)
            if status.get("attempt", 0) >= attempt and now >= step:
                return True
            assert status.get("state") not in {"Complete", "Failed", "Invalid"}, f"ended before step {step}: {status}"
            return False

        self.wait(f"{name} at step {step} of attempt {attempt}", reached)

    def wait_attempt(self, name: str, attempt: int, nodes: int = 2) -> None:
        """Until all pods of an attempt are ready; what an earlier one still commits does not tell."""

        def ready() -> bool:
            status = self.status(name)
            return (status.get("attempt"), status.get("nodes", {}).get("ready")) == (attempt, nodes)

        self.wait(f"{name}: {nodes} nodes of attempt {attempt}", ready)

    def wait_commit(self, name: str, step: int) -> None:
        """Until a checkpoint of at least this step is committed."""
        self.wait(f"{name}: checkpoint {step}", lambda: max(self.committed(name), default=0) >= step)

    def wait_state(self, name: str, state: str, seconds: float = PATIENCE) -> Plain:
        """Until a job is in a state; returns its status."""
        self.wait(f"{name}: {state}", lambda: self.status(name).get("state") == state, seconds)
        return self.status(name)

    def committed(self, name: str) -> list[int]:
        """Steps that the index names."""
        try:
            raw = self.s3.get_object(Bucket="checkpoints", Key=f"{name}/checkpoints.json")["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return []
        return [entry["step"] for entry in json.loads(raw)["checkpoints"]]

    def processes(self, pod: str, word: str) -> list[psutil.Process]:
        """Processes of a pod's containers whose command line has a word; the node's processes are this machine's."""
        uid = json.loads(self.kubectl("get", "pod", pod, "-o", "json"))["metadata"]["uid"]
        found = []
        for process in psutil.process_iter():
            try:
                line, group = process.cmdline(), Path(f"/proc/{process.pid}/cgroup").read_text()
            except (psutil.Error, OSError):
                continue
            if uid in group and any(word in part for part in line):
                found.append(process)
        return found

    def operator_process(self) -> psutil.Process:
        """The operator, as a process of this machine."""
        names = self.kubectl(
            "get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "-o", "json"
        )  # fmt: skip
        running = [pod for pod in json.loads(names)["items"] if "deletionTimestamp" not in pod["metadata"]]
        uid = running[0]["metadata"]["uid"]
        for process in psutil.process_iter():
            try:
                if (
                    process.cmdline()[-1:] == ["adapter_operator"]
                    and uid in Path(f"/proc/{process.pid}/cgroup").read_text()
                ):
                    return process
            except (psutil.Error, OSError):
                continue
        raise ClusterError("the operator does not run")

    def store_process(self) -> psutil.Process:
        """The S3 server, as a process of this machine."""
        pod = json.loads(self.kubectl("get", "pods", "-l", "app=s3", "-o", "json"))["items"][0]["metadata"]["name"]
        return self.processes(pod, "mini")[0]

    def command(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """A command of atj, as a user of the cluster starts it."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.Popen(
            [sys.executable, "-m", "atj.main", *map(str, arguments), "-n", NAMESPACE], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def lose_pod(self, name: str, node: int) -> None:
        """A node's pod of a job, gone at once, as with its machine."""
        attempt = str(self.status(name)["attempt"])
        pods = [pod for pod in self.pods(name) if pod["metadata"]["labels"]["adaptertraining.dev/attempt"] == attempt]
        self.kubectl("delete", "pod", pods[node]["metadata"]["name"], "--grace-period=0", "--force")

    def kill(self, process: psutil.Process) -> None:
        """SIGKILL, as the kernel would."""
        process.send_signal(signal.SIGKILL)

    def orphans(self, name: str) -> list[str]:
        """What is left of a job that has been deleted."""
        kinds = "pods,jobs,services,configmaps,networkpolicies"
        selector = f"adaptertraining.dev/job={name}"
        return self.kubectl("get", kinds, "-l", selector, "-o", "name").split()

    def describe(self) -> str:
        """The state of things, for a failed test."""
        return self.kubectl("get", "atj,pods,events", "-o", "wide")

    def collect(self) -> None:
        """Keeps the operator's log for whoever looks into a failure."""
        log = self.kubectl("logs", f"deployment/{OPERATOR}", "-n", SYSTEM, "--tail=2000")
        (self._loaded_file.parent / "logs" / "operator.log").write_text(log)
