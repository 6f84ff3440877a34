"""Content over TLS, on connections of the agent's own: whole both ways, and never from a server that cannot prove who it is."""

import datetime as dt
import hashlib
import itertools
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent import local_files
from adapter_agent.errors import NotTrusted
from adapter_agent.storage import connections, download, ranges, transfer
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from adapter_agent.storage.tls import TLSStream
from tests.agent.support import faulty_proxy
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.seaweed import BUCKET, Seaweed
from tests.cluster.certificates import VALIDITY, Authority, Certificate

pytestmark = pytest.mark.process

BODY = os.urandom(3 * 2**20 + 17)
EXPECTED = Expected(len(BODY), hashlib.sha256(BODY).hexdigest())
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), NOW)


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path_factory.mktemp("server"), authority.issue("store", names=["127.0.0.1"]))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is known, as a pod knows one from `pod.caBundle`."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    for name in ("RANGE_BYTES", "STREAM_BYTES"):
        monkeypatch.setattr(ranges, name, 2**20)
    monkeypatch.setattr(ranges, "FIRST_DELAY_SECONDS", 0.01)


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that connections of the agent's own have shaken hands with."""
    hosts: list[str] = []

    class Counted(TLSStream):
        def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
            super().__init__(sock, context, host)
            hosts.append(host)

    monkeypatch.setattr(connections, "TLSStream", Counted)
    return hosts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(BODY)
    return file


def store_at(url: str, folder: Path) -> Store:
    return Store(f"s3://{BUCKET}/{folder.name}".replace("_", "-"), Session(), url, None)


def send(store: Store, key: str, file: Path) -> None:
    transfer.send(store, key, file, local_files.facts_of(file), {}, transfer.Condition())


def test_content_goes_up_and_comes_down_whole_on_connections_that_are_kept(
    server: Seaweed, handshakes: list[str], file: Path, tmp_path: Path
) -> None:
    store = store_at(server.url, tmp_path)
    for key in ("a", "b", "c"):
        send(store, key, file)
        download.receive(store, key, tmp_path / key, EXPECTED, only_safe=False)
        assert (tmp_path / key).read_bytes() == BODY
    assert set(handshakes) == {"127.0.0.1"}
    assert len(handshakes) < 6


def context_of(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@pytest.fixture
def proxy(endpoint: str, authority: Authority) -> Iterator[Proxy]:
    """Speaks TLS to the agent, and goes wrong as it is told."""
    proxy = Proxy(endpoint, context_of(authority.issue("proxy", names=["127.0.0.1"])))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("fault", ["cut", "reset", "lose", "lose_before", "stall", "slow_down", "flip"])
def test_what_breaks_off_or_is_damaged_is_fetched_until_it_is_whole(
    proxy: Proxy, handshakes: list[str], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(faulty_proxy, "STALL_SECONDS", 0.3)
    store = store_at(proxy.url, tmp_path)
    send(store, "a", file)
    verdicts = itertools.chain([fault, "pass", fault], itertools.repeat("pass"))
    proxy.rule = lambda request: next(verdicts) if request.method == "GET" else "pass"
    download.receive(store, "a", tmp_path / "back", EXPECTED, only_safe=False)
    assert (tmp_path / "back").read_bytes() == BODY
    assert handshakes


def test_an_upload_whose_refusal_comes_before_its_body_is_said_at_once(
    proxy: Proxy, file: Path, tmp_path: Path
) -> None:
    store = store_at(proxy.url, tmp_path)
    verdicts = itertools.chain(["slow_down"], itertools.repeat("pass"))
    proxy.rule = lambda request: next(verdicts) if request.method == "PUT" else "pass"
    send(store, "a", file)
    download.receive(store, "a", tmp_path / "back", EXPECTED, only_safe=False)
    assert (tmp_path / "back").read_bytes() == BODY


@pytest.mark.parametrize(
    ("names", "since", "message"),
    [
        (["store.example"], dt.timedelta(), "the certificate is of another host"),
        (["127.0.0.1"], VALIDITY, "the store's certificate has expired"),
    ],
    ids=["another host", "expired"],
)
def test_a_certificate_that_proves_nothing_is_refused_before_anything_is_sent(
    endpoint: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], since: dt.timedelta, message: str
) -> None:  # fmt: skip
    issuer = Authority(tmp_path / "issuer", NOW - since)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(issuer.file))
    refused(endpoint, issuer.issue("proxy", names=names), file, tmp_path, message)


def test_an_authority_that_is_not_known_is_refused_before_anything_is_sent(
    endpoint: str, file: Path, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", NOW)
    refused(endpoint, other.issue("proxy", names=["127.0.0.1"]), file, tmp_path, "an authority that is not known here")


def refused(endpoint: str, certificate: Certificate, file: Path, folder: Path, message: str) -> None:
    proxy = Proxy(endpoint, context_of(certificate))
    try:
        with pytest.raises(NotTrusted, match=message):
            send(store_at(proxy.url, folder), "a", file)
        with pytest.raises(NotTrusted, match=message):
            download.receive(store_at(proxy.url, folder), "a", folder / "back", EXPECTED, only_safe=False)
        assert not proxy.log
    finally:
        proxy.close()


def test_a_server_without_tls_is_told_as_that(endpoint: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotTrusted, match="the endpoint does not speak TLS; write http://"):
        send(store_at(endpoint.replace("http://", "https://"), tmp_path), "a", file)
