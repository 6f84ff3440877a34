"""The store that comes along: apart from others, on loopback only, and the same after it was stopped."""

import http.client
import os
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from adapter_agent.errors import BucketMissing
from adapter_agent.priority import NICENESS
from adapter_agent.storage.store import Store
from adapter_api.document import Document, validate
from adapter_api.job import AdapterTrainingJob
from atj.errors import CommandError
from atj.loopback import fetch
from atj.storage.embedded_store import buckets_of, embedded_store, is_wanted, with_endpoint
from tests.cli.support.command import environment
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


def test_two_stores_run_side_by_side_and_keep_apart(tmp_path: Path) -> None:
    with embedded_store(tmp_path / "a", ["shared"]) as first, embedded_store(tmp_path / "b", ["shared"]) as second:
        assert first != second
        Store.connect("s3://shared", second).put("name", b"second")
    with embedded_store(tmp_path / "a") as first:
        assert list(Store.connect("s3://shared", first).list()) == []


def test_what_was_stored_is_there_when_the_store_runs_again(tmp_path: Path) -> None:
    with embedded_store(tmp_path, ["bucket"]) as endpoint:
        Store.connect("s3://bucket/a", endpoint).put("name", b"content")
    with embedded_store(tmp_path) as endpoint:
        assert Store.connect("s3://bucket/a", endpoint).get("name")[0] == b"content"


def test_store_listens_on_loopback_only_and_refuses_a_mistyped_bucket(tmp_path: Path) -> None:
    others = _servers()
    with embedded_store(tmp_path, ["bucket"]) as endpoint:
        servers = _servers() - others
        listening = {c.laddr.ip for server in servers for c in server.net_connections("tcp") if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        with pytest.raises(BucketMissing):
            Store.connect("s3://bukcet", endpoint).put("name", b"content")
    assert not any(server.is_running() for server in servers)


def test_no_inner_service_of_the_store_gives_or_takes_content_without_a_key(tmp_path: Path) -> None:
    others = _servers()
    with embedded_store(tmp_path, ["bucket"]) as endpoint:
        Store.connect("s3://bucket", endpoint).put("name", b"content")
        [server] = _servers() - others
        ports = {c.laddr.port for c in server.net_connections("tcp") if c.status == "LISTEN"}
        for port in ports:
            for path in ("/buckets/bucket/name", "/bucket/name", "/1,01"):
                with pytest.raises((OSError, http.client.HTTPException)):
                    fetch(f"http://127.0.0.1:{port}{path}", seconds=5)
            with pytest.raises((OSError, http.client.HTTPException)):
                urllib.request.urlopen(
                    urllib.request.Request(f"http://127.0.0.1:{port}/buckets/bucket/name", b"other", method="PUT"),
                    timeout=5,
                )
        assert Store.connect("s3://bucket", endpoint).get("name")[0] == b"content"


def test_grpc_ports_of_the_store_answer_nobody_without_its_certificate(tmp_path: Path) -> None:
    others = _servers()
    with embedded_store(tmp_path, ["bucket"]):
        [server] = _servers() - others
        ports = {c.laddr.port for c in server.net_connections("tcp") if c.status == "LISTEN"}
        owned = {port for port in ports if port - 10_000 in ports}
        assert len(owned) == 5
        for port in owned:
            assert not _http2_settings(socket.create_connection(("127.0.0.1", port), timeout=5))
            assert not _http2_settings(_tls(port))
            assert _http2_settings(_tls(port, tmp_path / "grpc.crt", tmp_path / "grpc.key"))
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("grpc.crt", "grpc.key")}
        assert modes == {0o600}


def _tls(port: int, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5))


def _http2_settings(connection: socket.socket) -> bytes:
    """What a gRPC server says first (RFC 9113), if it says anything."""
    with connection:
        try:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            return connection.recv(9)
        except OSError:
            return b""


def test_store_leaves_nothing_outside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    others = _servers()
    with embedded_store(tmp_path / "store"):
        [server] = _servers() - others
        ports = {c.laddr.port for c in server.net_connections("tcp") if c.status == "LISTEN"}
        assert _sockets(ports)
    assert not _sockets(ports)
    assert list((tmp_path / "tmp").iterdir()) == []


def _sockets(ports: set[int]) -> list[Path]:
    return [file for port in ports for file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock")]


def test_store_leaves_the_processor_to_those_that_train(tmp_path: Path) -> None:
    others = _servers()
    with embedded_store(tmp_path):
        assert {server.nice() for server in _servers() - others} == {min(psutil.Process().nice() + NICENESS, 19)}


def test_credentials_are_the_owners_alone_and_stay_the_same(tmp_path: Path) -> None:
    with embedded_store(tmp_path):
        first = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600
    with embedded_store(tmp_path):
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == first


def test_users_own_aws_settings_are_set_aside_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    with embedded_store(tmp_path):
        assert "AWS_PROFILE" not in os.environ
    assert os.environ["AWS_PROFILE"] == "work"


def test_running_store_can_be_joined(tmp_path: Path) -> None:
    with embedded_store(tmp_path) as first, embedded_store(tmp_path, join=True) as second:
        assert first == second


def test_locations_without_an_endpoint_go_to_the_embedded_store() -> None:
    job = _job({"data": {"s3": {"uri": "s3://datasets/digits"}}, "resumeFrom": {"uri": "s3://older/run"}})
    assert is_wanted(job)
    assert buckets_of(job) == {"checkpoints", "datasets", "older"}
    spec = with_endpoint(job, "http://127.0.0.1:1").spec
    assert spec.data is not None and spec.data.s3 is not None and spec.resume_from is not None  # noqa: PT018
    places = (spec.output.s3, spec.data.s3, spec.resume_from)
    assert [place.endpoint_url for place in places] == ["http://127.0.0.1:1"] * 3


def test_models_and_encodings_without_an_endpoint_go_there_as_well() -> None:
    params = {"pretrained_model_name_or_path": "s3://models/sdxl", "unet_config": {"train": True}}
    training = {"model": {"params": params}, "data": {"params": {"cache": {"uri": "s3://encodings/digits"}}}}
    job = _job({"training": training, "models": {"region": "eu-1"}})
    assert is_wanted(job)
    assert buckets_of(job) == {"checkpoints", "models", "encodings"}
    models = with_endpoint(job, "http://127.0.0.1:1").spec.models
    assert models is not None
    assert models.endpoint_url == "http://127.0.0.1:1"
    with pytest.raises(CommandError, match=r"spec\.models\.endpointURL"):
        is_wanted(_job({"training": training, "models": {"endpointURL": "https://s3.example"}}))


def test_job_that_names_an_endpoint_keeps_it() -> None:
    assert not is_wanted(_job({"output": {"s3": {"uri": "s3://checkpoints/a", "endpointURL": "https://s3.example"}}}))


def test_endpoint_for_data_but_not_for_output_is_refused() -> None:
    with pytest.raises(CommandError, match=r"spec\.data\.s3\.endpointURL"):
        is_wanted(_job({"data": {"s3": {"uri": "s3://datasets/a", "endpointURL": "https://s3.example"}}}))


def test_store_ends_with_the_command_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from atj.storage.embedded_store import embedded_store\n"
        f"with embedded_store(Path({str(tmp_path)!r})): print('ready', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    servers = [child for child in psutil.Process(holder.pid).children() if child.name() == "weed"]
    holder.kill()
    holder.communicate()
    wait_until("the servers have ended", lambda: not any(server.is_running() for server in servers))
    with embedded_store(tmp_path, ["bucket"]):
        pass


def _servers() -> set[psutil.Process]:
    return {child for child in psutil.Process().children() if child.name() == "weed"}


def _job(spec: dict[str, object]) -> AdapterTrainingJob:
    plain = {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": "digits"},
        "spec": {
            "output": {"s3": {"uri": "s3://checkpoints/digits"}},
            "training": {"model": {"params": {"token_conditioners": {"label_to_token": {}}}}},
            **spec,
        },
    }
    return validate(AdapterTrainingJob, Document("job.yaml", plain))


def test_a_store_whose_program_is_missing_names_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_keywords: None)
    with (
        pytest.raises(CommandError, match=r"`weed` is missing; it comes with the extra local") as refused,
        embedded_store(tmp_path),
    ):
        pass
    assert refused.value.exit_code == 2
