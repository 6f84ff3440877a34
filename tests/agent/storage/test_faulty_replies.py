"""Replies as stores and proxies really give them: without a length, byte by byte, empty, "come back later"."""

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from adapter_agent import local_files
from adapter_agent.errors import EndpointUnreachable, NotAStore, StorageError, Unsupported
from adapter_agent.storage import download, multipart, pace, patience, ranges, transfer
from adapter_agent.storage.multipart import Origin
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from tests.agent.support.faulty_proxy import Proxy, Request

MIB = 2**20


def fetch(store: Store, key: str, size: int, sha256: str | None, folder: Path) -> bytes:
    target = folder / "fetched"
    download.receive(store, key, target, Expected(size, sha256), only_safe=False)
    return target.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_replies_without_a_length_are_read_whole(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path, size: int
) -> None:
    body = os.urandom(size)
    store.put("a", body)
    proxy.rule = lambda _: "without_length"
    found = through.head("a")
    assert found is not None
    assert found.size == size
    assert through.get("a")[0] == body
    assert fetch(through, "a", size, local_files.facts_of_bytes(body).sha256, tmp_path) == body


def test_what_is_longer_than_it_should_be_is_found_without_a_length_too(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path
) -> None:
    store.put("a", b"12345")
    proxy.rule = lambda _: "without_length"
    with pytest.raises(StorageError, match="has more than the 4 bytes"):
        fetch(through, "a", 4, None, tmp_path)


@pytest.mark.parametrize("is_large", [False, True], ids=["a document", "a file"])
def test_a_store_that_sends_a_byte_now_and_then_holds_nobody_for_ever(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_large: bool
) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0.3)
    monkeypatch.setattr(ranges, "RANGE_TRIES", 2)
    store.put("a", os.urandom(MIB))
    proxy.rule = lambda request: "trickle" if request.method == "GET" else "pass"
    began = time.monotonic()

    def read() -> bytes:
        return fetch(through, "a", MIB, None, tmp_path) if is_large else through.get("a")[0]

    with pytest.raises(EndpointUnreachable, match="arrive too slowly"):
        read()
    assert time.monotonic() - began < 20


def test_a_file_of_no_bytes_goes_up_and_comes_back(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "caption.txt"
    path.touch()
    transfer.send(store, "caption.txt", path, local_files.facts_of(path), {}, transfer.Condition())
    assert store.get("caption.txt")[0] == b""
    assert fetch(store, "caption.txt", 0, local_files.facts_of(path).sha256, tmp_path) == b""


def test_an_answer_that_no_store_gives_is_told_as_such(proxy: Proxy, through: Store, tmp_path: Path) -> None:
    proxy.rule = lambda _: "web_page"
    for ask in (lambda: through.put("a", b"x"), lambda: list(through.list()), through.check):
        with pytest.raises(EndpointUnreachable, match="a web page answers, not an S3 store"):
            ask()
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(NotAStore, match="its reply has no ETag"):
        through.get("a")
    with pytest.raises(NotAStore, match="its reply has no ETag"):
        through.head("a")


@pytest.mark.parametrize("result", ["<CopyPartResult/>", '<CopyPartResult><ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag></CopyPartResult>'])  # fmt: skip
def test_a_copy_that_did_not_happen_is_not_believed(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path, result: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * MIB))
    facts = multipart.facts_of(path)
    transfer.send(store, "first", path, facts, {}, transfer.Condition())
    proxy.bodies["said_to_be_copied"] = result.encode()
    proxy.rule = lambda request: "said_to_be_copied" if "x-amz-copy-source" in request.headers else "pass"
    origin = Origin(known={facts.sha256: "first"})
    transfer.send(through, "second", path, facts, {}, transfer.Condition(), origin=origin)
    assert store.get("second")[0] == path.read_bytes()
    proxy.bodies["said_to_be_copied"] = b"<CopyObjectResult/>"
    with pytest.raises(StorageError, match="says that it has copied first, and has not"):
        through.copy("first", "third", facts.size)


def test_an_error_with_the_status_of_success_is_an_error(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * MIB))
    facts = multipart.facts_of(path)
    proxy.bodies["failed_late"] = b"<Error><Code>InternalError</Code><Message>We encountered an error</Message></Error>"
    proxy.rule = lambda request: "failed_late" if request.method == "POST" and "uploadId" in request.query else "pass"
    with pytest.raises(EndpointUnreachable, match="InternalError: We encountered an error"):
        multipart.send(through, "a", path, facts, {}, {"IfNoneMatch": "*"}, multipart.ignore_bytes, Origin())
    assert store.head("a") is None


def test_a_listing_that_ends_in_the_middle_is_no_listing(proxy: Proxy, through: Store) -> None:
    """As stores answer that take ListObjectsV2 for what came before it."""
    proxy.bodies["cut_listing"] = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>1</Size><ETag>x</ETag></Contents>"
        b"</ListBucketResult>"
    )
    proxy.rule = lambda _: "cut_listing"
    with pytest.raises(Unsupported, match="no ListObjectsV2"):
        list(through.list())


def test_a_store_that_asks_to_wait_is_waited_for_with_growing_pauses(
    store: Store, proxy: Proxy, through: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.02)
    times: list[float] = []

    def rule(_: Request) -> str:
        times.append(time.monotonic())
        return "slow_down" if len(times) <= 6 else "pass"

    proxy.rule = rule
    through.put("a", b"1")
    assert store.get("a")[0] == b"1"
    pauses = [after - before for before, after in pairwise(times)]
    assert len(times) == 7, "the SDK alone gives up after three"
    assert pauses[-1] > 2 * pauses[0]


def test_waiting_has_its_end_and_says_that_it_was_waited(
    proxy: Proxy, through: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "WAIT_SECONDS", 0.5)
    proxy.rule = lambda _: "slow_down"
    began = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="stayed so for as long as was waited"):
        through.put("a", b"1")
    assert time.monotonic() - began < 15


def test_keys_with_unusual_characters_are_listed_fetched_and_copied(store: Store, tmp_path: Path) -> None:
    for key in ("a b/ä+%&=,;'(1).txt", "b/%2F%20.txt", "c/日本.txt", "d/~*!@$.txt"):
        store.put(key, key.encode())
        assert fetch(store, key, len(key.encode()), None, tmp_path) == key.encode()
        store.copy(key, f"copied/{key}", len(key.encode()))
        assert store.get(f"copied/{key}")[0] == key.encode()
        assert key in [facts.key for facts in store.list()]
        store.delete(key)
        assert store.head(key) is None


def test_a_refusal_that_breaks_off_is_asked_for_again_and_told_in_one_line(proxy: Proxy, through: Store) -> None:
    proxy.rule = lambda _: "reset"
    with pytest.raises(EndpointUnreachable, match="broke"):
        through.get("nowhere")
    assert len(proxy.log) > 1
