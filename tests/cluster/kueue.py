"""Kueue on a control plane: its controller as a process, its CRDs, and its webhooks reached by address."""

import base64
import datetime as dt
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.tools import MODULES

NAMESPACE = "kueue-system"
SECRET = "kueue-webhook-server-cert"
Plain = dict[str, Any]


class Kueue:
    """One controller that manages Jobs with a queue name, of one namespace; other namespaces are left alone."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder
        self._source = _source()
        self._webhooks: list[Plain] = []

    def start(self) -> None:
        """Returns when it admits jobs.

        Raises:
            ClusterError: it ended, or was not ready in a minute.
        """
        self._plane.kubectl(
            "apply", "--server-side", "-f", str(self._source / "config" / "components" / "crd" / "bases")
        )
        for name in ("clusterqueues", "localqueues", "resourceflavors", "workloads"):
            self._plane.wait_for_crd(f"{name}.kueue.x-k8s.io")
        self._plane.kubectl("create", "namespace", NAMESPACE)
        self._plane.kubectl("create", "secret", "generic", SECRET, "-n", NAMESPACE)
        webhook, health = _free_ports(2)
        bundle = self._certificates()
        config = self._folder / "config.json"
        config.write_text(json.dumps(_configuration(webhook, health, self._folder / "serving")))
        flags = [
            f"--config={config}",
            f"--kubeconfig={self._plane.kubeconfig}",
            "--feature-gates=VisibilityOnDemand=false",
        ]
        self._plane.processes.start("kueue", [self._plane.program("kueue"), *flags])
        self._plane.processes.wait_until(lambda: _listens(webhook), 60, "kueue")
        self._webhooks = _by_address(
            self._source / "config" / "components" / "webhook" / "manifests.yaml", webhook, bundle, self._namespace
        )
        self._plane.kubectl("apply", "--server-side", "-f", "-", stdin=_list(self._webhooks))

    def stop(self) -> None:
        """Ends it, and removes what would stand in the way of others."""
        if self._webhooks:
            self._plane.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=_list(self._webhooks))
        self._plane.processes.stop("kueue")
        self._plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    def _certificates(self) -> bytes:
        authority = Authority(self._folder / "authority", dt.datetime.now(dt.UTC))
        issued = authority.issue("kueue-webhook", names=["127.0.0.1"])
        serving = self._folder / "serving"
        serving.mkdir()
        (serving / "tls.crt").write_bytes(issued.certificate.read_bytes())
        (serving / "tls.key").write_bytes(issued.key.read_bytes())
        return authority.file.read_bytes()


def _configuration(webhook: int, health: int, certificates: Path) -> Plain:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
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


def _by_address(file: Path, port: int, bundle: bytes, namespace: str) -> list[Plain]:
    """Kueue's own webhooks for Jobs of the namespace and for its own kinds; and two empty ones that it looks for."""
    found: list[Plain] = []
    for each in yaml.safe_load_all(file.read_text()):
        kind = "mutating" if each["kind"].startswith("Mutating") else "validating"
        empty = {**each, "metadata": {"name": f"kueue-{kind}-webhook-configuration"}, "webhooks": []}
        kept = []
        for webhook in each["webhooks"]:
            groups = {group for rule in webhook["rules"] for group in rule["apiGroups"]}
            if not groups <= {"batch", "kueue.x-k8s.io"}:
                continue
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {
                "url": f"https://127.0.0.1:{port}{path}", "caBundle": base64.b64encode(bundle).decode(),
            }  # fmt: skip
            if groups == {"batch"}:
                webhook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            kept.append(webhook)
        found += [empty, {**each, "metadata": {"name": f"kueue-by-address-{kind}"}, "webhooks": kept}]
    return found


def _source() -> Path:
    """The module's folder, which holds the manifests of exactly this version."""
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"],
        cwd=MODULES / "kueue", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        raise ClusterError(f"kueue's module is not there: {listed.stderr.strip()}")
    return Path(listed.stdout.strip())


def _list(items: list[Plain]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(server.getsockname()[1]) for server in servers]
    finally:
        for server in servers:
            server.close()
