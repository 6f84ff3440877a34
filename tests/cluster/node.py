"""The kubelet tier's node: containerd, kubelet, kube-proxy and CoreDNS in namespaces of their own. Needs root."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import images, kernel
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.namespaces import NODE_ADDRESS, NodeNamespaces
from tests.cluster.tools import Tools

NAME = "node-1"
POD_NETWORK = "10.88.0.0/24"
CLUSTER_DOMAIN = "cluster.local"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

# The plugin `opt` would make folders in the machine's /opt. The out-of-memory score: runc may not lower it where the
# machine itself withholds CAP_SYS_RESOURCE.
CONTAINERD_CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""

# A time to live of a second: a pod that has moved must be found at its new address.
COREDNS_CONFIG = """\
.:53 {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        ttl 1
    }}
}}
"""

NETWORK_CONFIG = {
    "cniVersion": "0.4.0",
    "name": "test-cluster",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
    ],
}

COREDNS_ROLE = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
        },
    ],
}


class Node:
    """One node of a control plane that runs in the node's own network."""

    def __init__(self, plane: ControlPlane, namespaces: NodeNamespaces, tools: Tools) -> None:
        self._plane = plane
        self._namespaces = namespaces
        self._tools = tools
        self._folder = plane.folder / "node"

    def start(self, authority: Authority, server: str) -> None:
        """Start the node and wait until it is ready for pods.

        Raises:
            ClusterError: A component ended or wasn't ready in a minute; the message has the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        kernel.remember_settings(self._folder / "kernel-settings.json")
        self._start_containerd()
        self._start_kubelet(authority, server)
        self._start_kube_proxy(authority, server)
        self._start_coredns(authority, server)
        self._plane.processes.wait_until(self._is_ready, 60, "kubelet")

    def clean_up(self) -> None:
        """Undo what outlives the node's namespaces; call it when those are gone."""
        kernel.remove_pods_groups()
        kernel.restore_settings(self._folder / "kernel-settings.json")

    def load(self, archive: Path) -> None:
        """Import the images of a docker-archive or OCI archive, so that pods find them without a registry.

        Raises:
            ClusterError: containerd refused; the message is its own.
        """
        command = [*self._namespaces.enter(), "ctr", "--namespace=k8s.io", "images", "import", str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"containerd could not import {archive}: {done.stderr.strip()}")

    def _start(self, name: str, program: str | Path, flags: Sequence[str]) -> None:
        self._plane.processes.start(name, [*self._namespaces.enter(), program, *flags])

    def _start_containerd(self) -> None:
        network = self._folder / "network"
        network.mkdir(exist_ok=True)
        (network / "10-bridge.conflist").write_text(json.dumps(NETWORK_CONFIG))
        config = self._folder / "containerd.toml"
        config.write_text(CONTAINERD_CONFIG.format(pause=images.BUSYBOX, network=network))
        self._start("containerd", "containerd", [f"--config={config}"])
        answers = [*self._namespaces.enter(), "ctr", "version"]
        self._plane.processes.wait_until(
            lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0, 30, "containerd"
        )
        self.load(images.busybox(self._folder / "busybox"))

    def _start_kubelet(self, authority: Authority, server: str) -> None:
        serving = authority.issue("kubelet", names=[NODE_ADDRESS, NAME])
        user = f"system:node:{NAME}"
        connection = authority.kubeconfig(self._folder / "kubelet.kubeconfig", server, user, ["system:nodes"])
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.file)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": "",
            "makeIPTablesUtilChains": False,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            # A developer's full disk is no reason to drop images that no registry could give back, or to evict pods.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi"},
        }
        file = self._folder / "kubelet.json"
        file.write_text(json.dumps(config))
        flags = [
            f"--config={file}",
            f"--kubeconfig={connection}",
            f"--hostname-override={NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ]
        self._start("kubelet", self._tools.path("kubelet"), flags)

    def _start_kube_proxy(self, authority: Authority, server: str) -> None:
        user = "system:kube-proxy"
        connection = authority.kubeconfig(self._folder / "kube-proxy.kubeconfig", server, user)
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(connection)},
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            "hostnameOverride": NAME,
            # Zero leaves the machine's own limits alone.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        file = self._folder / "kube-proxy.json"
        file.write_text(json.dumps(config))
        self._start("kube-proxy", self._tools.path("kube-proxy"), [f"--config={file}"])

    def _start_coredns(self, authority: Authority, server: str) -> None:
        self._plane.kubectl("apply", "-f", "-", stdin=json.dumps(COREDNS_ROLE))
        connection = authority.kubeconfig(self._folder / "coredns.kubeconfig", server, "system:coredns")
        file = self._folder / "Corefile"
        file.write_text(COREDNS_CONFIG.format(address=NODE_ADDRESS, domain=CLUSTER_DOMAIN, kubeconfig=connection))
        self._start("coredns", self._tools.path("coredns"), [f"-conf={file}"])

    def _is_ready(self) -> bool:
        condition = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self._plane.kubectl("get", "nodes", "--output", f"jsonpath={condition}").strip() == "True"
