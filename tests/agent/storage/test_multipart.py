"""Large files: a killed upload goes on where it was, known content is copied, and nothing is left behind."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_agent import local_files
from adapter_agent.checkpoints import retention
from adapter_agent.checkpoints.index import Claim
from adapter_agent.checkpoints.upload import upload_checkpoint
from adapter_agent.errors import CredentialsRefused, Damaged, PreconditionFailed, StorageError
from adapter_agent.storage import download, multipart, transfer
from adapter_agent.storage.multipart import Origin
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import Claims, safetensors

MIB = 2**20


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(multipart, "MIN_PART_BYTES", 5 * MIB)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of five parts, the last one short."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(21 * MIB))
    return path


def send(store: Store, path: Path, origin: Origin, key: str = "large") -> int:
    """Sends a file; returns how many bytes went over the wire."""
    sent: list[int] = []
    transfer.send(store, key, path, multipart.facts_of(path), {}, transfer.Condition(), sent.append, origin)
    return sum(sent)


def holds(store: Store, key: str, path: Path, folder: Path) -> bool:
    facts = local_files.facts_of(path)
    download.receive(store, key, folder / "back", Expected(facts.size, facts.sha256), only_safe=False)
    return True


def open_uploads(store: Store) -> int:
    answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key(""))
    return len(answer.get("Uploads", ()))


def refusing_parts_after(proxy: Proxy, count: int) -> None:
    """The store takes so many parts, and then none: what a killed process leaves."""
    passed: list[str] = []

    def rule(request: Request) -> str:
        if "partNumber" not in request.query:
            return "pass"
        passed.append(request.query)
        return "pass" if len(passed) <= count else "lose_before"

    proxy.rule = rule


def test_facts_of_a_file_hold_the_digest_of_every_part(large: Path) -> None:
    facts = multipart.facts_of(large)
    assert facts == local_files.facts_of(large)
    assert len(facts.parts) == 5
    empty = large.with_name("empty")
    empty.write_bytes(b"")
    assert multipart.facts_of(empty) == local_files.facts_of_bytes(b"")


@pytest.mark.parametrize("size", [5 * MIB, 5 * MIB + 1, 10 * MIB])
def test_parts_cover_files_of_every_size_exactly(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert send(store, path, Origin()) == size
    assert holds(store, "large", path, tmp_path)


def test_a_killed_upload_sends_only_the_parts_that_had_not_arrived(
    store: Store, through: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "uploads" / "large.json"
    refusing_parts_after(proxy, 3)
    with pytest.raises(StorageError):
        send(through, large, Origin(journal))
    assert journal.exists()
    assert open_uploads(store) == 1
    again = send(store, large, Origin(journal))
    assert again <= 2 * 5 * MIB
    assert holds(store, "large", large, tmp_path)
    assert not journal.exists()
    assert open_uploads(store) == 0


def test_a_journal_of_other_content_is_not_gone_on_with(
    store: Store, through: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "large.json"
    refusing_parts_after(proxy, 3)
    with pytest.raises(StorageError):
        send(through, large, Origin(journal))
    large.write_bytes(os.urandom(21 * MIB))
    assert send(store, large, Origin(journal)) == 21 * MIB
    assert holds(store, "large", large, tmp_path)
    assert open_uploads(store) == 0


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_torn_journal_begins_anew(store: Store, large: Path, tmp_path: Path, content: str) -> None:
    journal = tmp_path / "large.json"
    journal.write_text(content)
    assert send(store, large, Origin(journal)) == 21 * MIB
    assert holds(store, "large", large, tmp_path)


def test_without_the_right_to_list_parts_an_upload_begins_anew(
    store: Store, through: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "large.json"
    refusing_parts_after(proxy, 3)
    with pytest.raises(StorageError):
        send(through, large, Origin(journal))
    proxy.rule = lambda request: "denied" if (request.method, "uploadId" in request.query) == ("GET", True) else "pass"
    assert send(through, large, Origin(journal)) == 21 * MIB
    assert holds(store, "large", large, tmp_path)
    assert open_uploads(store) == 0


def test_credentials_that_have_expired_end_no_upload(
    store: Store, through: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "large.json"
    refusing_parts_after(proxy, 3)
    with pytest.raises(StorageError):
        send(through, large, Origin(journal))
    proxy.rule = lambda _: "expired"
    with pytest.raises(CredentialsRefused):
        send(through, large, Origin(journal))
    assert send(store, large, Origin(journal)) <= 2 * 5 * MIB


def test_an_upload_that_somebody_ended_begins_anew(
    store: Store, through: Store, proxy: Proxy, large: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "large.json"
    refusing_parts_after(proxy, 3)
    with pytest.raises(StorageError):
        send(through, large, Origin(journal))
    (upload,) = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key("large"))["Uploads"]
    store.abort_upload("large", upload["UploadId"])
    assert send(store, large, Origin(journal)) == 21 * MIB
    assert holds(store, "large", large, tmp_path)


def test_a_completion_whose_reply_was_lost_is_found_and_nothing_is_sent_again(
    store: Store, through: Store, proxy: Proxy, claimed: Claims, large: Path, tmp_path: Path
) -> None:
    claim: Claim = claimed(store, 1)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(large.read_bytes()))

    def lose_completion(request: Request) -> str:
        return "lose" if request.method == "POST" and "uploadId" in request.query else "pass"

    proxy.rule = lose_completion
    sent: list[int] = []
    with pytest.raises(StorageError):
        upload_checkpoint(through, claim, 0, 1, folder, sent.append, tmp_path / "uploads")
    proxy.rule = lambda _: "pass"
    first = sum(sent)
    upload_checkpoint(through, claim, 0, 1, folder, sent.append, tmp_path / "uploads")
    assert sum(sent) == first
    assert holds(store, "checkpoint-1/model.safetensors", folder / "model.safetensors", tmp_path)


def test_known_content_is_copied_in_the_store(store: Store, large: Path, tmp_path: Path) -> None:
    send(store, large, Origin(), "checkpoint-1/large")
    known = {local_files.facts_of(large).sha256: "checkpoint-1/large"}
    assert send(store, large, Origin(None, known), "checkpoint-2/large") == 0
    store.delete("checkpoint-1/large")
    assert holds(store, "checkpoint-2/large", large, tmp_path)


def test_a_copy_is_created_once_as_well(store: Store, large: Path) -> None:
    send(store, large, Origin(), "first")
    store.put("second", b"of a newer attempt")
    with pytest.raises(PreconditionFailed):
        send(store, large, Origin(None, {local_files.facts_of(large).sha256: "first"}), "second")
    assert store.get("second")[0] == b"of a newer attempt"
    assert open_uploads(store) == 0


def test_a_store_that_fails_to_copy_is_sent_the_content(
    store: Store, proxy: Proxy, through: Store, large: Path, tmp_path: Path
) -> None:
    """Also where it calls that its own trouble: it would never end."""
    send(store, large, Origin(), "first")
    proxy.rule = lambda request: "in_trouble" if "x-amz-copy-source" in request.headers else "pass"
    journal = tmp_path / "large.json"
    assert send(through, large, Origin(journal, {local_files.facts_of(large).sha256: "first"}), "second") == 21 * MIB
    assert holds(store, "second", large, tmp_path)
    assert open_uploads(store) == 0
    assert not journal.exists()


def test_content_that_is_gone_meanwhile_is_sent(store: Store, large: Path, tmp_path: Path) -> None:
    known = {local_files.facts_of(large).sha256: "checkpoint-1/gone"}
    assert send(store, large, Origin(None, known)) == 21 * MIB
    assert holds(store, "large", large, tmp_path)


def test_a_part_that_is_damaged_on_its_way_is_refused(store: Store, large: Path) -> None:
    facts = multipart.facts_of(large)
    lying = local_files.FileFacts(facts.size, facts.sha256, (facts.parts[1], *facts.parts[1:]))
    with pytest.raises(Damaged):
        transfer.send(store, "large", large, lying, {}, transfer.Condition())
    assert store.head("large") is None
    assert open_uploads(store) == 0


@pytest.fixture
def interrupted(store: Store, through: Store, proxy: Proxy, claimed: Claims, tmp_path: Path) -> Claim:
    """The claim of an attempt whose node was lost, with its journal, while it sent checkpoint 1."""
    claim, folder = claimed(store, 1), tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(os.urandom(11 * MIB)))
    refusing_parts_after(proxy, 1)
    with pytest.raises(StorageError):
        upload_checkpoint(through, claim, 0, 1, folder, journals=tmp_path / "uploads")
    assert open_uploads(store) == 1
    return claim


def test_an_upload_of_a_lost_node_is_ended_and_those_of_others_are_not(
    store: Store, interrupted: Claim, claimed: Claims
) -> None:
    for key in ("checkpoint-1/theirs.bin", "checkpoint-best/model.bin", "else"):
        store.client.create_multipart_upload(Bucket=store.bucket, Key=store.full_key(key))
    retention.sweep(store, claimed(store, 2), datetime.now(UTC))
    assert open_uploads(store) == 3
    assert not list(store.list(f"attempts/{interrupted.attempt}/"))


def test_a_store_that_lists_no_uploads_has_those_of_a_lost_node_ended(
    store: Store, through: Store, proxy: Proxy, interrupted: Claim, claimed: Claims
) -> None:
    proxy.rule = lambda request: (
        "unknown_key" if request.method == "GET" and request.query.startswith("uploads") else "pass"
    )
    retention.sweep(through, claimed(through, interrupted.attempt + 1), datetime.now(UTC))
    assert open_uploads(store) == 0


def test_an_upload_that_has_ended_already_is_no_error(store: Store, interrupted: Claim, claimed: Claims) -> None:
    (upload,) = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key(""))["Uploads"]
    store.abort_upload("checkpoint-1/model.safetensors", upload["UploadId"])
    retention.sweep(store, claimed(store, 2), datetime.now(UTC))
    assert not list(store.list(f"attempts/{interrupted.attempt}/"))


def test_a_completed_upload_leaves_no_record(store: Store, claimed: Claims, large: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(large.read_bytes()))
    upload_checkpoint(store, claimed(store, 1), 0, 1, folder)
    assert not list(store.list("attempts/"))
