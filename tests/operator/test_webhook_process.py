"""The webhook as a process before a real API server: what happens when it is away, and while its certificate changes."""

import base64
import datetime as dt
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import Refused, path_of
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import OnPlane, Plain, quick_job
from tests.support.ports import free_port
from tests.support.repository import REPOSITORY

pytestmark = pytest.mark.cluster

CONFIGURATION = "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NAME = "of-one-namespace"


class Webhook:
    """A process that answers on an address of its own."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority", dt.datetime.now(dt.UTC))
        self.port = free_port()
        self.certificates = folder / "serving"
        self.certificates.mkdir()
        self.rotate("first")
        self._log = folder / "webhook.log"
        self.process: subprocess.Popen[bytes] | None = None

    def rotate(self, name: str) -> None:
        """A new certificate of the same authority, written as the kubelet would: each file at once."""
        issued = self.authority.issue(name, names=["127.0.0.1"])
        for source, target in ((issued.key, "tls.key"), (issued.certificate, "tls.crt")):
            partial = self.certificates / f"{target}.partial"
            shutil.copyfile(source, partial)
            partial.rename(self.certificates / target)

    def start(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "ADAPTER_WEBHOOK_PORT": str(self.port),
            "ADAPTER_WEBHOOK_CERTIFICATES": str(self.certificates),
        }
        command = [sys.executable, "-m", "adapter_operator.webhook"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def serial(self) -> str:
        """Of the certificate that is served; empty if nobody answers."""
        try:
            return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=60)
        except OSError:
            return ""

    def configuration(self, namespace: str) -> Plain:
        """What the chart installs, for one namespace, and by address."""
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": NAME},
            "webhooks": [{
                "name": "validate.adaptertraining.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 5,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{"apiGroups": ["adaptertraining.dev"], "apiVersions": ["v1alpha1"],
                           "operations": ["CREATE", "UPDATE"], "resources": ["adaptertrainingjobs"]}],
                "clientConfig": {
                    "url": f"https://127.0.0.1:{self.port}/validate",
                    "caBundle": base64.b64encode(self.authority.file.read_bytes()).decode(),
                },
            }],
        }  # fmt: skip


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    webhook = Webhook(tmp_path_factory.mktemp("webhook"))
    webhook.start()
    yield webhook
    webhook.stop()


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(control_plane, "webhooked", tmp_path_factory.mktemp("webhooked"))
    place.wait("an answer", webhook.serial)
    place.api.call("POST", CONFIGURATION, webhook.configuration(place.namespace))
    try:
        # The API server takes up a new webhook a little later.
        place.wait("checks", lambda: offered(place, across_fields=True) == 422)
        yield place
    finally:
        place.api.call("DELETE", f"{CONFIGURATION}/{NAME}")
        place.close()


def offered(place: OnPlane, *, across_fields: bool = False) -> int:
    """The code for a job that would be created: a good one, or one that only the webhook knows to be bad."""
    job = quick_job("offered")
    if across_fields:
        job["spec"]["training"]["model"]["params"]["token_conditioners"]["label_to_token"]["column"] = "absent"
    try:
        place.api.call("POST", path_of("adaptertrainingjobs", place.namespace), job, query={"dryRun": "All"})
    except Refused as refused:
        return refused.code
    return 201


def test_while_the_webhook_is_down_nothing_is_created_and_what_runs_goes_on(place: OnPlane, webhook: Webhook) -> None:
    place.start()
    life = Life(place, "runs")
    place.wait_state("runs", "Running")
    webhook.stop()
    assert offered(place) == 500
    place.wait("complete", life.step)  # a restart and an end; status and metadata need no webhook
    assert lives.seen(place, "runs") == lives.UNDISTURBED
    lives.clear(place, "runs")
    webhook.start()
    place.wait("accepted again", lambda: offered(place) == 201)
    assert offered(place, across_fields=True) == 422


def test_no_creation_is_refused_while_the_certificate_is_rotated(place: OnPlane, webhook: Webhook) -> None:
    before = webhook.serial()
    assert before
    webhook.rotate("second")
    answers: list[int] = []
    end = time.monotonic() + 60
    while webhook.serial() == before:
        assert time.monotonic() < end, "a minute is what a rotation may take"
        answers.append(offered(place))
    answers += [offered(place) for _ in range(20)]
    assert set(answers) == {201}
    assert len(answers) > 20
