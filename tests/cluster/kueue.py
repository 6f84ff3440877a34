"""Kueue on a control plane: its controller as a process, its CRDs, and its webhooks reached by address."""

import json
import socket
from pathlib import Path

from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.controllers import Plain, by_address, listed, serving_certificate, source

NAMESPACE = "kueue-system"
SECRET = "kueue-webhook-server-cert"
_CONFIGURATIONS = {
    "Mutating": "kueue-mutating-webhook-configuration",
    "Validating": "kueue-validating-webhook-configuration",
}


class Kueue:
    """One controller that manages Jobs with a queue name, of one namespace; other namespaces are left alone."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder
        self._source = source("kueue", "sigs.k8s.io/kueue")
        self._webhooks: list[Plain] = []

    def start(self) -> None:
        """Returns when it admits jobs.

        Raises:
            ClusterError: it ended, or was not ready in a minute.
        """
        crds = self._source / "config" / "components" / "crd"
        self._plane.kubectl("apply", "--server-side", "-f", str(crds / "bases"))
        # Kueue does not start before it has given its certificate to the conversion webhooks of these. None is ever called: one
        # version is written and read.
        for patch in sorted((crds / "patches").glob("webhook_in_*.yaml")):
            kind = patch.stem.removeprefix("webhook_in_")
            self._plane.kubectl("patch", "crd", f"{kind}.kueue.x-k8s.io", "--type=merge", "--patch-file", str(patch))
        for name in ("clusterqueues", "localqueues", "resourceflavors", "workloads"):
            self._plane.wait_for_crd(f"{name}.kueue.x-k8s.io")
        self._plane.kubectl("create", "namespace", NAMESPACE)
        self._plane.kubectl("create", "secret", "generic", SECRET, "-n", NAMESPACE)
        webhook, health = free_ports(2)
        bundle = serving_certificate(self._folder / "authority", self._folder / "serving")
        config = self._folder / "config.json"
        config.write_text(json.dumps(_configuration(webhook, health, self._folder / "serving")))
        flags = [
            f"--config={config}",
            f"--kubeconfig={self._plane.kubeconfig}",
            "--feature-gates=VisibilityOnDemand=false",
        ]
        self._plane.processes.start("kueue", [self._plane.program("kueue"), *flags])
        self._plane.processes.wait_until(lambda: _listens(webhook), 60, "kueue")
        manifest = self._source / "config" / "components" / "webhook" / "manifests.yaml"
        self._webhooks = by_address(manifest, _CONFIGURATIONS, webhook, bundle)
        for each in self._webhooks:
            each["webhooks"] = [webhook for webhook in each["webhooks"] if self._is_wanted(webhook)]
        self._plane.kubectl("apply", "--server-side", "-f", "-", stdin=listed(self._webhooks))

    def stop(self) -> None:
        """Ends it, and removes what would stand in the way of others."""
        if self._webhooks:
            self._plane.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=listed(self._webhooks))
        self._plane.processes.stop("kueue")
        self._plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    def _is_wanted(self, webhook: Plain) -> bool:
        """Whether it is for Kueue's own kinds, or for Jobs, of which it is then held to the namespace's."""
        groups = {group for rule in webhook["rules"] for group in rule["apiGroups"]}
        if groups == {"batch"}:
            webhook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}}
        return groups <= {"batch", "kueue.x-k8s.io"}


def _configuration(webhook: int, health: int, certificates: Path) -> Plain:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"qps": 500, "burst": 1000},
        # Kueue insists on certificates of its own making for metrics otherwise.
        "internalCertManagement": {"enable": True, "webhookSecretName": SECRET},
        "integrations": {"frameworks": ["batch/job"]},
    }


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
