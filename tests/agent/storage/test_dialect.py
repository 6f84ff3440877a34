"""What stores demand with each request, or refuse: asked for by the job, sent with every request that needs it."""

import os
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from adapter_agent import local_files
from adapter_agent.errors import Damaged, StorageError
from adapter_agent.storage import download, multipart, transfer
from adapter_agent.storage.dialect import PLAIN, Dialect, dialect_of
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from adapter_api.places import OutputLocation, S3Location
from tests.agent.support.faulty_proxy import Proxy

MIB = 2**20
KMS = Dialect(requester_pays=True, encryption="aws:kms", kms_key_id="alias/photos")


def sent_by(store: Store, folder: Path) -> None:
    """Every kind of request that an agent makes of what it writes and reads."""
    path = folder / "file"
    path.write_bytes(os.urandom(11 * MIB))
    facts = multipart.facts_of(path)
    store.put("document", b"{}")
    transfer.send(store, "large", path, facts, {}, transfer.Condition())
    store.copy("large", "copy", facts.size)
    download.receive(store, "copy", folder / "back", Expected(facts.size, facts.sha256), only_safe=False)
    store.head("copy")
    list(store.list())
    store.delete("document", "large", "copy")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(multipart, "MIN_PART_BYTES", 5 * MIB)


def through(proxy: Proxy, uri: str, aws: Session, dialect: Dialect) -> Store:
    return Store(uri, aws, proxy.url, None, dialect=dialect)


def test_a_store_that_refuses_checksum_headers_is_written_and_read_with_md5(
    store: Store, proxy: Proxy, output_uri: str, aws: Session, tmp_path: Path
) -> None:
    """As Backblaze B2 does."""
    proxy.rule = lambda request: (
        "unsupported_header"
        if any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum")) for name in request.headers)
        else "pass"
    )
    with pytest.raises(StorageError, match="Unsupported header"):
        sent_by(through(proxy, output_uri, aws, PLAIN), tmp_path)
    proxy.log.clear()
    sent_by(through(proxy, output_uri, aws, Dialect(checksums="MD5")), tmp_path)
    bodies = [request for request in proxy.log if request.method == "PUT" and request.body]
    assert len(bodies) == 4
    assert all("content-md5" in request.headers for request in bodies)
    assert not list(store.list())


def test_damage_on_the_way_is_found_by_a_store_that_knows_md5(
    proxy: Proxy, output_uri: str, aws: Session, store: Store
) -> None:
    def damage(method: str, _path: str, headers: dict[str, str], _body: bytes) -> dict[str, str]:
        wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="} if method == "PUT" else {}
        return {**headers, **wrong}

    # The signature covers Content-MD5: a server that skips it would let the wrong one pass.
    proxy.headers = damage
    with pytest.raises(StorageError):
        through(proxy, output_uri, aws, Dialect(checksums="MD5")).put("a", b"content")
    assert store.head("a") is None


def test_damage_on_the_way_is_found_by_the_etag_where_the_store_looks_at_nothing(
    proxy: Proxy, output_uri: str, aws: Session
) -> None:
    proxy.rule = lambda request: "stored_something_else" if request.method == "PUT" else "pass"
    proxy.etags["stored_something_else"] = f'"{"0" * 32}"'
    with pytest.raises(Damaged, match="another MD5 than what was sent"):
        through(proxy, output_uri, aws, Dialect(checksums="MD5")).put("a", b"content")


def test_encryption_and_payment_go_with_every_request_that_knows_them(
    proxy: Proxy, output_uri: str, aws: Session
) -> None:
    with_all = through(proxy, output_uri, aws, KMS)
    seen: list[tuple[str, dict[str, Any]]] = []
    for client in (with_all.client, with_all.data_client):
        client.meta.events.register_last(
            "before-parameter-build.s3", lambda params, model, **_: seen.append((model.name, dict(params)))
        )
    with pytest.raises(StorageError):  # the server here has no such key
        with_all.put("a", b"")
    for ask in (
        lambda: with_all.copy("a", "b", 1),
        lambda: with_all.head("a"),
        lambda: list(with_all.list()),
        lambda: with_all.delete("a"),
        lambda: multipart._begin(with_all, "c", local_files.facts_of_bytes(b"x"), {}, multipart.Origin()),
    ):
        try:
            ask()
        except StorageError:
            continue
    encrypted = {name for name, params in seen if params.get("SSEKMSKeyId") == "alias/photos"}
    assert encrypted == {"PutObject", "CopyObject", "CreateMultipartUpload"}
    paid = {name for name, params in seen if params.get("RequestPayer") == "requester"}
    assert paid == {name for name, _ in seen}


@pytest.mark.parametrize(
    ("style", "url"),
    [
        (None, "http://127.0.0.1:9/photos/run/a"),
        ("path", "http://127.0.0.1:9/photos/run/a"),
        ("virtual", "http://photos.store.example:9/run/a"),
    ],
)
def test_the_bucket_stands_where_the_store_wants_it(aws: Session, style: Any, url: str) -> None:
    endpoint = "http://store.example:9" if style == "virtual" else "http://127.0.0.1:9"
    store = Store("s3://photos/run", aws, endpoint, None, dialect=Dialect(style))
    asked: list[str] = []
    store.client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.url))
    with pytest.raises(StorageError):
        store.put("a", b"x")
    assert asked[0] == url


def test_the_users_aws_configuration_says_it_where_the_job_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    asked: list[str] = []
    store = Store.connect("s3://photos/run", "http://store.example:9")
    store.client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.url))
    with pytest.raises(StorageError):
        store.put("a", b"x")
    assert asked[0] == "http://photos.store.example:9/run/a"


def test_a_job_says_it_all() -> None:
    output = OutputLocation.model_validate(
        {
            "uri": "s3://photos/run", "addressingStyle": "Virtual", "requesterPays": True, "checksums": "MD5",
            "serverSideEncryption": {"algorithm": "aws:kms", "kmsKeyID": "alias/photos"},
        }
    )  # fmt: skip
    assert dialect_of(output) == Dialect("virtual", True, "MD5", "aws:kms", "alias/photos")
    assert dialect_of(S3Location(uri="s3://photos/data")) == PLAIN
