"""Bodies that the kernel sends: whole, also by botocore itself; and what a store says that does not want them."""

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent import local_files
from adapter_agent.errors import CredentialsRefused
from adapter_agent.storage import connections, file_body, transfer
from adapter_agent.storage.store import Store

BODY = os.urandom(3 * 2**20 + 17)
REFUSAL = b"<Error><Code>InvalidAccessKeyId</Code><Message>said before the body</Message></Error>"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    return path


def send(store: Store, file: Path) -> None:
    transfer.send(store, "a", file, local_files.facts_of(file), {}, transfer.Condition())


@contextmanager
def answering(reply: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each request as soon as its headers are there, and then closes; and what it has read."""
    server, heads = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(65_536))
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heads
    finally:
        server.close()


@pytest.mark.parametrize("directly", [True, False], ids=["by the kernel", "by botocore, as through a proxy"])
def test_a_body_arrives_whole(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch, *, directly: bool) -> None:
    sent: list[int] = []
    honest = file_body.FileBody.send_to

    def counting(body: file_body.FileBody, target: socket.socket) -> None:
        sent.append(body.size)
        honest(body, target)

    monkeypatch.setattr(file_body.FileBody, "send_to", counting)
    if not directly:
        monkeypatch.setattr(connections.Connections, "can_carry", lambda *_: False)
    send(store, file)
    assert store.get("a")[0] == BODY
    assert sent == ([len(BODY)] if directly else [])


def test_a_refusal_before_the_body_is_read_as_what_it_says(aws: Session, file: Path) -> None:
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(REFUSAL)}\r\nConnection: close\r\n\r\n".encode()
    with answering(head + REFUSAL) as (url, heads):
        with pytest.raises(CredentialsRefused, match="said before the body"):
            send(Store("s3://bucket/run", aws, url, None), file)
        assert [len(each) < 4096 for each in heads] == [True], "the body was sent although it was refused"


def test_a_connection_that_the_store_has_closed_meanwhile_is_not_used_again(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[http.client.HTTPConnection] = []
    put = connections.Connection.exchange

    def exchange(connection: connections.Connection, *arguments: object) -> http.client.HTTPResponse:
        kept.append(connection)
        return put(connection, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(connections.Connection, "exchange", exchange)
    send(store, file)
    kept[0].sock.shutdown(socket.SHUT_RDWR)
    store.delete("a")
    send(store, file)
    assert kept[0] is not kept[1]
    assert store.get("a")[0] == BODY
