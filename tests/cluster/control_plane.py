"""The control-plane tier: etcd, API server, controllers, scheduler, and fake nodes whose pods KWOK runs. Needs no root."""

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.certificates import Authority, Certificate, service_account_keys
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Processes
from tests.cluster.tools import Tools

SERVICE_NETWORK = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
FAKE_NODE_STAGES = Path(__file__).with_name("fake_nodes.yaml")
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Placement:
    """Where a control plane runs and how others reach it."""

    address: str = "127.0.0.1"
    """The API server's address for clients and in certificates."""
    port: int | None = None
    """The API server's port; None: a free one."""
    enter: Callable[[], tuple[str, ...]] = tuple
    """Gives the words that, before a command, run it in the network that has this address."""

    @property
    def is_reachable_from_pods(self) -> bool:
        """Whether the `kubernetes` Service can lead to it."""
        return self.address != "127.0.0.1"


class ControlPlane:
    """One cluster without kubelets. Several may run side by side, each in a folder of its own.

    Args:
        folder: Holds everything of this cluster; removed by `stop`.
        tools: The programs.
        fake_nodes: How many nodes KWOK plays, named fake-0, fake-1, ...: 64 CPUs, 256 GiB and 110 pods each.
        audit: Whether to write every request but those for leases to `audit.log` in the folder.
        die_with_caller: Whether its processes end when the calling process does.
        placement: Where it runs.
    """

    def __init__(
        self,
        folder: Path,
        tools: Tools,
        *,
        fake_nodes: int = 0,
        audit: bool = False,
        die_with_caller: bool = True,
        placement: Placement | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.kubeconfig = self.folder / "kubeconfig"
        self.discovery_cache = self.folder / "discovery"
        self.audit_log = self.folder / "audit.log"
        self._tools = tools
        self._fake_nodes = fake_nodes
        self._audit = audit
        self._placement = placement or Placement()
        self.processes = Processes(self.folder, die_with_caller=die_with_caller)
        self.certificates = self.folder / "certificates"

    def start(self, authority: Authority | None = None) -> Path:
        """Start everything and wait until it serves.

        Args:
            authority: Who issues its certificates; None: a new one.

        Returns:
            A kubeconfig of a user who may do everything.

        Raises:
            ClusterError: A component ended or wasn't ready in a minute; the message has the end of its log.
        """
        self._tools.build(COMPONENTS if self._fake_nodes else COMPONENTS[:-1])
        self._tools.path("kubectl")
        authority = authority or Authority(self.certificates, dt.datetime.now(dt.UTC))
        etcd, peers, free = free_ports(3)
        port = self._placement.port or free
        server = f"https://{self._placement.address}:{port}"
        keys = service_account_keys(self.certificates)
        authority.kubeconfig(self.kubeconfig, server, "admin", ["system:masters"])

        self._start("etcd", self._etcd_flags(f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peers}"))
        self._start("kube-apiserver", self._api_server_flags(authority, keys, f"http://127.0.0.1:{etcd}", port))
        self.processes.wait_until(self._serves, 180, "kube-apiserver")
        self._start("kube-controller-manager", self._controller_flags(authority, keys, server))
        self._start("kube-scheduler", self._scheduler_flags(authority, server))
        if self._fake_nodes:
            self._start_fake_nodes()
        self.processes.wait_until(self._accepts_pods, 180, "kube-controller-manager")
        return self.kubeconfig

    def stop(self) -> None:
        """End every process and remove the folder."""
        self.processes.stop_all()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def is_running(self) -> bool:
        """Whether all that was started still runs."""
        names = self.processes.names()
        return bool(names) and all(self.processes.find(name) is not None for name in names)

    def kill(self, component: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one of COMPONENTS.

        Raises:
            ClusterError: It isn't running.
        """
        self.processes.signal(component, number)

    def start_again(self, component: str) -> None:
        """Start a component that has ended, as it was, on the same ports and data; wait until the API server serves."""
        self.processes.start_again(component)
        self.processes.wait_until(self._serves, 180, component)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints, as the user who may do everything.

        Raises:
            ClusterError: kubectl failed; the message is kubectl's.
        """
        command = [str(self._tools.path("kubectl")), *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.discovery_cache)}
        done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def wait_for_crd(self, name: str) -> None:
        """Returns when the API server serves the kind of a CustomResourceDefinition that has been applied.

        Raises:
            ClusterError: It doesn't after half a minute. (`kubectl wait` takes a CRD without conditions for an error.)
        """

        def is_served() -> bool:
            crd = json.loads(self.kubectl("get", "crd", name, "-o", "json"))
            conditions = (crd.get("status") or {}).get("conditions") or ()
            if not any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return False
            # For a second or two more, its lists are answered by 429: storage is (re)initializing.
            spec = crd["spec"]
            version = next(each["name"] for each in spec["versions"] if each["served"])
            try:
                self.kubectl("get", "--raw", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}")
            except ClusterError:
                return False
            return True

        self.processes.wait_until(is_served, 30, "kube-apiserver")

    def program(self, name: str) -> Path:
        """File of one of the cluster's programs."""
        return self._tools.path(name)

    @property
    def version(self) -> str:
        """Of its Kubernetes, as the server says it: v1.37.2."""
        return self._tools.kubernetes.version

    def _start(self, name: str, flags: Sequence[str]) -> None:
        self.processes.start(name, [*self._placement.enter(), self._tools.path(name), *flags])

    def _etcd_flags(self, clients: str, peers: str) -> list[str]:
        return [
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # what it holds need not survive the machine
            "--quota-backend-bytes=4294967296",
        ]

    def _api_server_flags(self, authority: Authority, keys: Certificate, etcd: str, port: int) -> list[str]:
        place = self._placement
        names = ["localhost", "kubernetes.default.svc", "kubernetes.default", place.address, FIRST_SERVICE]
        serving = authority.issue("kube-apiserver", names=names)
        to_kubelets = authority.issue("kube-apiserver-kubelet-client", ["system:masters"])
        flags = [
            f"--etcd-servers={etcd}",
            f"--bind-address={place.address}",
            f"--advertise-address={place.address}",
            # The API server refuses to publish a loopback address.
            f"--endpoint-reconciler-type={'lease' if place.is_reachable_from_pods else 'none'}",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.file}",
            f"--kubelet-client-certificate={to_kubelets.certificate}",
            f"--kubelet-client-key={to_kubelets.key}",
            f"--kubelet-certificate-authority={authority.file}",
            "--kubelet-preferred-address-types=InternalIP",  # node names resolve nowhere
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys.certificate}",
            f"--service-account-signing-key-file={keys.key}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
        ]
        if self._audit:
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(AUDIT_POLICY))
            flags += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return flags

    def _controller_flags(self, authority: Authority, keys: Certificate, server: str) -> list[str]:
        user = "system:kube-controller-manager"
        config = authority.kubeconfig(self.folder / "controller-manager.kubeconfig", server, user)
        return [
            f"--kubeconfig={config}",
            f"--service-account-private-key-file={keys.key}",
            f"--root-ca-file={authority.file}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            # The default of 20 requests a second is for clusters that share their API server: it would be what tests measure.
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]

    def _scheduler_flags(self, authority: Authority, server: str) -> list[str]:
        user = "system:kube-scheduler"
        connection = authority.kubeconfig(self.folder / "scheduler.kubeconfig", server, user)
        config = self.folder / "scheduler.json"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "kubescheduler.config.k8s.io/v1",
                    "kind": "KubeSchedulerConfiguration",
                    "clientConnection": {"kubeconfig": str(connection), "qps": 1000, "burst": 2000},
                    "leaderElection": {"leaderElect": False},
                }
            )
        )
        return [f"--config={config}", "--secure-port=0"]

    def _start_fake_nodes(self) -> None:
        self._start(
            "kwok",
            [
                f"--kubeconfig={self.kubeconfig}",
                f"--config={FAKE_NODE_STAGES}",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-lease-duration-seconds=40",
            ],
        )
        nodes = [_fake_node(f"fake-{number}") for number in range(self._fake_nodes)]
        self.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
        self.kubectl("wait", "--for=condition=Ready", "--timeout=180s", "nodes", "-l", "type=kwok")

    def _serves(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz", "--request-timeout=5s") == "ok"
        except ClusterError:
            return False

    def _accepts_pods(self) -> bool:
        """A pod is refused as long as its namespace has no default service account."""
        return "default" in self.kubectl("get", "serviceaccounts", "--output=name", "--namespace=default")


def _fake_node(name: str) -> dict[str, object]:
    size = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": name},
        },
        "status": {"capacity": size, "allocatable": size},
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
