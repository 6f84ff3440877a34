"""The chart's mode cert-manager, with cert-manager's own controllers: a certificate that is trusted, and one that follows it."""

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.controllers import source
from tests.support.ports import free_port
from tests.support.repository import CHART, CHART_IMAGES, REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cluster

SYSTEM, NAME = "certified", "ato-adapter-training-operator-webhook"
HOST = f"{NAME}.{SYSTEM}.svc"
CONTROLLERS = ("cert-manager-controller", "cert-manager-cainjector")
Plain = dict[str, Any]


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With cert-manager, and the chart installed in its mode."""
    crds = source("cert_manager", "github.com/cert-manager/cert-manager") / "deploy" / "crds"
    for file in sorted(crds.glob("crd-*.yaml")):
        crd = yaml.safe_load(file.read_text())
        del crd["metadata"]["labels"]  # which their own chart fills in
        control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd))
    for kind in ("certificates", "issuers", "certificaterequests"):
        control_plane.wait_for_crd(f"{kind}.cert-manager.io")
    folder = tmp_path_factory.mktemp("cert-manager")
    running = []
    environment = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)}
    for program in CONTROLLERS:
        command = [
            str(control_plane.program(program)),
            f"--kubeconfig={control_plane.kubeconfig}",
            "--leader-elect=false",
        ]
        with (folder / f"{program}.log").open("ab") as log:
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    control_plane.kubectl("delete", "crd", "adaptertrainingjobs.adaptertraining.dev", "--ignore-not-found")
    values = ["--set", "webhook.certificates.mode=cert-manager", "--set", "webhook.failurePolicy=Ignore"]
    helm = [str(control_plane.program("helm"))]
    subprocess.run(
        [*helm, "install", "ato", str(CHART), "-n", SYSTEM, "--create-namespace", *CHART_IMAGES, *values],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    yield control_plane
    subprocess.run([*helm, "uninstall", "ato", "-n", SYSTEM], env=environment, check=True, capture_output=True)
    for process in running:
        process.kill()
        process.wait()


def issued(plane: ControlPlane) -> Plain:
    """The Secret's data, decoded; empty until there is a certificate."""
    found = json.loads(plane.kubectl("get", "secrets", "-n", SYSTEM, "-o", "json"))["items"]
    data = next((each.get("data") or {} for each in found if each["metadata"]["name"] == NAME), {})
    return {name: base64.b64decode(text) for name, text in data.items()} if data.get("tls.crt") else {}


def trusted(plane: ControlPlane) -> bytes:
    """What the API server would trust when it calls the webhook."""
    found = json.loads(plane.kubectl("get", "validatingwebhookconfiguration", NAME, "-o", "json"))
    return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def handshake(port: int, bundle: bytes) -> bytes:
    """The certificate that is served, verified as the API server does it: by the bundle, for the Service's name."""
    context = ssl.create_default_context(cadata=bundle.decode())
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def reached(port: int, bundle: bytes) -> bool:
    try:
        return bool(handshake(port, bundle))
    except OSError:
        return False


def test_the_webhook_is_trusted_and_stays_so_when_its_certificate_is_issued_anew(
    plane: ControlPlane, tmp_path: Path
) -> None:
    wait_until("a certificate", lambda: issued(plane))
    wait_until("its authority in the webhook's configuration", lambda: trusted(plane) == issued(plane)["ca.crt"])
    port = free_port()
    mount(issued(plane), tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ADAPTER_WEBHOOK_PORT": str(port),
        "ADAPTER_WEBHOOK_CERTIFICATES": str(tmp_path),
    }
    webhook = subprocess.Popen([sys.executable, "-m", "adapter_operator.webhook"], env=environment, cwd=REPOSITORY)
    try:
        wait_until("a handshake", lambda: reached(port, trusted(plane)))
        before = handshake(port, trusted(plane))
        plane.kubectl("delete", "secret", NAME, "-n", SYSTEM)
        wait_until("another certificate", lambda: issued(plane) and issued(plane)["tls.crt"] != ssl.DER_cert_to_PEM_cert(before).encode())  # fmt: skip
        wait_until("its authority in the webhook's configuration", lambda: trusted(plane) == issued(plane)["ca.crt"])
        assert not reached(port, trusted(plane)), "the old certificate is not trusted any more"
        mount(issued(plane), tmp_path)
        wait_until("a handshake with the new one", lambda: reached(port, trusted(plane)))
        assert handshake(port, trusted(plane)) != before
    finally:
        webhook.kill()
        webhook.wait()


def mount(data: Plain, folder: Path) -> None:
    """What a kubelet does with a Secret's volume."""
    for name in ("tls.key", "tls.crt"):
        (folder / f"{name}.partial").write_bytes(data[name])
        shutil.move(folder / f"{name}.partial", folder / name)
