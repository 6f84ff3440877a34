"""Store: conditional writes, listings, parts; and what its errors tell."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from adapter_agent import local_files
from adapter_agent.errors import (
    BucketMissing,
    ClockSkewed,
    CredentialsRefused,
    Damaged,
    EndpointUnreachable,
    ObjectMissing,
    PreconditionFailed,
    StorageError,
    StorageFull,
    WrongRegion,
)
from adapter_agent.storage import download, multipart, transfer
from adapter_agent.storage.answers import explain
from adapter_agent.storage.proxies import is_loopback
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.seaweed import KEY, SECRET


def test_an_object_is_created_once(store: Store) -> None:
    etag = store.put_if_absent("a/b.json", b"{}", {"sha256": "0"})
    with pytest.raises(PreconditionFailed):
        store.put_if_absent("a/b.json", b"[]")
    assert store.get("a/b.json") == (b"{}", etag)
    facts = store.head("a/b.json")
    assert facts is not None
    assert facts.metadata == {"sha256": "0"}


def test_an_object_is_replaced_only_while_it_is_what_was_read(store: Store) -> None:
    first = store.put_if_absent("index", b"1")
    second = store.replace_if_match("index", b"2", first)
    with pytest.raises(PreconditionFailed):
        store.replace_if_match("index", b"3", first)
    assert store.get("index") == (b"2", second)


def test_what_is_read_while_it_is_replaced_has_the_etag_of_its_content(store: Store) -> None:
    """versitygw 1.8 gives the one of the old object and the other of the new: a change would undo another one."""
    store.put("index", b"0")
    end = time.monotonic() + 1.5

    def replace() -> None:
        count = 0
        while time.monotonic() < end:
            count += 1
            store.put("index", f"{count:0500d}".encode())

    writer = threading.Thread(target=replace)
    writer.start()
    while time.monotonic() < end:
        body, etag = store.get("index")
        assert hashlib.md5(body, usedforsecurity=False).hexdigest() == etag.strip('"')
    writer.join()


def test_an_etag_that_is_no_digest_of_the_content_is_accepted(store: Store, proxy: Proxy, through: Store) -> None:
    """As with keys of a key management service."""
    store.put("a", b"content")
    other = f'"{"0" * 32}"'
    proxy.replies = {"etag": other}
    assert through.get("a") == (b"content", other)
    assert len(proxy.log) == 2


def test_a_missing_object_is_none_or_an_error(store: Store) -> None:
    assert store.head("nothing") is None
    with pytest.raises(ObjectMissing, match=r"nothing at http://127.0.0.1:\d+: does not exist"):
        store.get("nothing")
    store.delete("nothing")


def test_an_object_is_copied_whole_also_where_one_request_may_not_copy_so_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapter_agent.storage.store.MAX_COPY_BYTES", 5 * 2**20)
    for size in (1, 11 * 2**20):
        body = os.urandom(size)
        store.put("a", body)
        store.copy("a", "b", size)
        assert store.get("b")[0] == body


def test_a_mounted_secret_counts_as_it_is_now(
    store: Store, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid out as the kubelet does it: files are links through ..data, which is replaced as a whole."""
    monkeypatch.setattr("adapter_agent.storage.clients.CREDENTIALS_FOLDER", str(tmp_path))
    for version, secret in (("..1", "revoked"), ("..2", SECRET)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "AWS_ACCESS_KEY_ID").write_text(KEY)
        (tmp_path / version / "AWS_SECRET_ACCESS_KEY").write_text(f"{secret}\n")
    (tmp_path / "..data").symlink_to("..1")
    mounted = Store.connect(store.uri, endpoint)
    with pytest.raises(CredentialsRefused):
        mounted.put("a", b"1")
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    mounted.renew_credentials()
    mounted.put("a", b"1")
    assert store.get("a")[0] == b"1"


def test_listing_stays_below_the_prefix(store: Store, endpoint: str, aws: Session) -> None:
    for key in ("a/1", "a/2", "ab/3", "c"):
        store.put(key, b"x")
    Store(f"{store.uri}-other", aws, endpoint, None).put("d", b"x")
    assert [facts.key for facts in store.list()] == ["a/1", "a/2", "ab/3", "c"]
    assert [facts.key for facts in store.list("a/")] == ["a/1", "a/2"]
    assert list(store.folders()) == ["a", "ab"]
    store.delete("a/1", "a/2", "ab/3", "c")
    assert not list(store.list())


def test_a_bucket_is_made_if_it_is_missing(endpoint: str, tmp_path: Path) -> None:
    other = Store.connect(f"s3://made-{os.getpid()}/run", endpoint)
    with pytest.raises(BucketMissing):
        other.check()
    other.create_bucket_if_missing()
    other.create_bucket_if_missing()
    other.check()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that goes up in three parts."""
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 5 * 2**20)
    monkeypatch.setattr(multipart, "MIN_PART_BYTES", 5 * 2**20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(11 * 2**20))
    return path


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(store: Store, large: Path, tmp_path: Path) -> None:
    sent: list[int] = []
    facts = local_files.facts_of(large)
    transfer.send(store, "large", large, facts, {}, transfer.Condition(), sent.append)
    assert (len(sent), sum(sent)) == (3, facts.size)
    back = tmp_path / "back"
    download.receive(store, "large", back, Expected(facts.size, facts.sha256), only_safe=False)
    assert local_files.facts_of(back) == facts


def test_a_large_file_is_created_once_and_leaves_no_parts_behind(store: Store, large: Path) -> None:
    store.put("large", b"there before")
    with pytest.raises(PreconditionFailed):
        transfer.send(store, "large", large, local_files.facts_of(large), {}, transfer.Condition())
    assert store.get("large")[0] == b"there before"
    answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key("large"))
    assert not answer.get("Uploads")


def test_a_file_that_changes_while_it_is_uploaded_is_not_created(store: Store, large: Path, tmp_path: Path) -> None:
    stale = local_files.FileFacts(large.stat().st_size, "0" * 64)
    with pytest.raises(Damaged, match="changed while it was uploaded"):
        transfer.send(store, "large", large, stale, {}, transfer.Condition())
    small = tmp_path / "small"
    small.write_bytes(b"new")
    with pytest.raises(Damaged, match="the file changed meanwhile"):
        transfer.send(store, "small", small, local_files.facts_of_bytes(b"old"), {}, transfer.Condition())
    assert not list(store.list())


def test_a_download_that_fails_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    store.put("a.json", b"{}")
    target = tmp_path / "folder" / "a.json"
    for size, digest in ((3, None), (1, None), (2, "0" * 64)):
        with pytest.raises(Damaged):
            download.receive(store, "a.json", target, Expected(size, digest), only_safe=True)
    assert not list(target.parent.iterdir())


def test_a_dead_endpoint_is_named_with_what_to_check(tmp_path: Path) -> None:
    dead = Store.connect("s3://bucket/run", "http://127.0.0.1:9")
    with pytest.raises(
        EndpointUnreachable, match=r"s3://bucket/run at http://127.0.0.1:9.*refused.*check the endpoint"
    ):
        dead.check()


def answer(code: str, status: int) -> ClientError:
    said: Any = {"Error": {"Code": code, "Message": "said"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, "Op")


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (answer("InvalidAccessKeyId", 403), CredentialsRefused, "check AWS_ACCESS_KEY_ID"),
        (answer("SignatureDoesNotMatch", 403), CredentialsRefused, "check AWS_SECRET_ACCESS_KEY"),
        (answer("AccessDenied", 403), CredentialsRefused, "give these credentials"),
        (answer("ExpiredToken", 400), CredentialsRefused, "renew"),
        (answer("RequestTimeTooSkewed", 403), ClockSkewed, "NTP"),
        (answer("NoSuchBucket", 404), BucketMissing, "create it"),
        (answer("PermanentRedirect", 301), WrongRegion, "region"),
        (answer("XMinioStorageFull", 507), StorageFull, "free or add some"),
        (answer("SlowDown", 503), EndpointUnreachable, "overloaded"),
        (answer("InternalError", 500), EndpointUnreachable, "look at its log"),
        (answer("Strange", 400), StorageError, "400 Strange: said"),
        (NoCredentialsError(), CredentialsRefused, "set AWS_ACCESS_KEY_ID"),
    ],
    ids=lambda value: value.response["Error"]["Code"] if isinstance(value, ClientError) else None,
)
def test_every_error_says_where_what_and_what_to_do(
    error: BotoCoreError | ClientError, kind: type[StorageError], remedy: str
) -> None:
    explained = explain(error, "s3://bucket/run/x", "http://store")
    assert type(explained) is kind
    assert str(explained).startswith("s3://bucket/run/x at http://store: ")
    assert remedy in str(explained)


def test_a_proxy_in_the_environment_does_not_stand_before_a_store_on_this_machine(
    endpoint: str, output_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    store = Store.connect(output_uri, endpoint)
    store.put("a", b"1")
    (tmp_path / "file").write_bytes(b"content")
    facts = local_files.facts_of(tmp_path / "file")
    transfer.send(store, "b", tmp_path / "file", facts, {}, transfer.Condition())
    assert store.get("a")[0] == b"1"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "https://localhost", "http://[::1]:9000/a", "http://127.8.9.1"]
)
def test_addresses_of_this_machine_are_known(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.example.com", "https://minio:9000", "http://10.0.0.1", "http://[fe80::1]"]
)
def test_other_addresses_are_not_taken_for_this_machines(url: str) -> None:
    assert not is_loopback(url)
