"""A real S3 for the session, a place in it and nodes of its own for every test."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent.checkpoints import index
from adapter_agent.checkpoints.index import Claim
from adapter_agent.local_files import Folders
from adapter_agent.storage import patience
from adapter_agent.storage.store import Store
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import Node
from tests.agent.support.seaweed import BUCKET, KEY, SECRET
from tests.agent.support.servers import COMPILED, SERVERS

ON_BOTH = {
    "test_store", "test_index", "test_probe", "test_faulty_replies", "test_commit", "test_retention", "test_multipart", "test_download",
}  # fmt: skip
"""Modules whose tests run on every server: what is conditional, created once, or sent in parts."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that need a server get it from `server_kind`: SeaweedFS, or in these modules one after the other."""
    if "server_kind" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".")[2]
        kinds = [
            pytest.param(name, marks=pytest.mark.cluster if name in COMPILED else pytest.mark.process)
            for name in (SERVERS if module in ON_BOTH else ["seaweedfs"])
        ]
        metafunc.parametrize("server_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def endpoint(server_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = SERVERS[server_kind](tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server.url
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that asks to wait for ever is waited for no longer than a test has to."""
    monkeypatch.setattr(patience, "WAIT_SECONDS", 2.0)


@pytest.fixture
def output_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address that no other test uses."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}".replace("_", "-")


@pytest.fixture(scope="session")
def aws() -> Session:
    """One for all tests: loading the SDK's service model takes longer than most of them."""
    return Session(KEY, SECRET)


@pytest.fixture
def store(endpoint: str, output_uri: str, aws: Session) -> Store:
    return Store(output_uri, aws, endpoint, None)


@pytest.fixture
def through(proxy: "Proxy", output_uri: str, aws: Session) -> Store:
    """The same place, reached through the proxy."""
    return Store(output_uri, aws, proxy.url, None)


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def claimed() -> Callable[[Store, int], Claim]:
    def claim(store: Store, attempt: int) -> Claim:
        claim = Claim(attempt, f"nonce-{attempt}")
        return replace(claim, run=index.claim(store, claim).run)

    return claim


@pytest.fixture
def make_node(tmp_path: Path, endpoint: str, output_uri: str) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(node: int = 0, nodes: int = 1, attempt: int = 1, endpoint_url: str = endpoint, work: str = "") -> Node:
        folders = Folders(tmp_path / (work or f"node-{node}"))
        made.append(Node(folders, output_uri, endpoint_url, node, nodes, attempt))
        return made[-1]

    yield make
    for process in (process for node in made for process in node.processes):
        if process.poll() is None:
            process.kill()
        process.communicate()
