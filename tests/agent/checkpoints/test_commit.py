"""Upload and commit: receipts, manifest, index; what others left behind; and what a reader sees meanwhile."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_agent.checkpoints import fetch, index, upload
from adapter_agent.checkpoints.commit import build_manifest, commit, receipts_of
from adapter_agent.checkpoints.index import Claim
from adapter_agent.checkpoints.retention import retire, sweep
from adapter_agent.errors import ContentConflict, Damaged, Fenced, IndexLost, StorageError
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import CheckpointManifest, IndexEntry, Receipt
from adapter_api.retention import Policy
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import (
    Claims,
    committed_steps,
    put_marked,
    safetensors,
    upload_and_commit,
    write_checkpoint,
)
from tests.support.waiting import wait_until

Save = Callable[..., IndexEntry]

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes, uploads and commits a checkpoint of a run with one node."""

    def save(store: Store, claim: Claim, step: int, values: bytes | None = None) -> IndexEntry:
        folder = write_checkpoint(tmp_path / f"out-{claim.attempt}", step, values=values)
        return upload_and_commit(store, claim, step, folder)

    return save


def test_a_checkpoint_of_two_nodes_is_committed_only_with_both_receipts(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    claim = claimed(store, 1)
    folders = [write_checkpoint(tmp_path / f"node-{node}", 10, node) for node in (0, 1)]
    upload.upload_checkpoint(store, claim, 0, 10, folders[0])
    assert receipts_of(store, claim, 10, nodes=2) is None
    upload.upload_checkpoint(store, claim, 1, 10, folders[1])
    receipts = receipts_of(store, claim, 10, nodes=2)
    assert receipts is not None
    assert committed_steps(store) == []
    entry = commit(store, claim, receipts, folders[0], 2, NOW)
    assert committed_steps(store) == [10]
    assert entry.bytes == sum(file.size for receipt in receipts for file in receipt.files)


def upload_of(store: Store, claim: Claim, output: Path, node: int, pass_id: str) -> Path:
    """What one of two nodes has saved of step 10 in a pass, and uploaded."""
    folder = write_checkpoint(output / f"{node}", 10, node, values=f"{pass_id} {node}".encode(), pass_id=pass_id)
    upload.upload_checkpoint(store, claim, node, 10, folder)
    return folder


def test_a_checkpoint_is_of_one_pass_however_often_processes_were_started_in_place(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    """Node 0 has saved and sent step 10 when node 1's process crashes; torchrun starts both anew, and both come by it again."""
    claim = claimed(store, 1)
    before = upload_of(store, claim, tmp_path, 0, "first")
    upload_of(store, claim, tmp_path, 1, "second")
    assert receipts_of(store, claim, 10, nodes=2) is None
    folder = upload_of(store, claim, tmp_path, 0, "second")
    assert folder == before
    receipts = receipts_of(store, claim, 10, nodes=2)
    assert receipts is not None
    commit(store, claim, receipts, folder, 2, NOW)
    manifest = fetch.fetch_checkpoint(store, 10, tmp_path / "back")
    assert manifest.pass_id == "second"
    assert (tmp_path / "back/unet/model.safetensors").read_bytes() == safetensors(b"second 0")


def test_receipts_of_two_passes_make_no_manifest(tmp_path: Path) -> None:
    receipts = [Receipt(step=10, attempt=1, node=node, pass_id=f"{node}", files=()) for node in (0, 1)]
    with pytest.raises(Damaged, match="receipts are of different passes"):
        build_manifest(receipts, tmp_path, 2, NOW)


def test_what_a_later_pass_has_saved_is_not_committed_with_receipts_of_an_earlier_one(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    claim = claimed(store, 1)
    upload_of(store, claim, tmp_path, 0, "first")
    folder = upload_of(store, claim, tmp_path, 1, "first")
    receipts = receipts_of(store, claim, 10, nodes=2)
    assert receipts is not None
    write_checkpoint(folder.parent, 10, 1, pass_id="second")
    with pytest.raises(ContentConflict, match="saved again by a later pass"):
        commit(store, claim, receipts, folder, 2, NOW)
    assert committed_steps(store) == []


def test_a_folder_that_a_later_pass_replaces_under_its_upload_gets_no_receipt(
    store: Store, through: Store, proxy: Proxy, claimed: Claims, tmp_path: Path
) -> None:
    claim = claimed(store, 1)
    folder = write_checkpoint(tmp_path, 10, values=b"first")

    def save_anew(request: Request) -> str:
        if request.method == "PUT" and request.key.endswith("versions.json"):
            proxy.rule = lambda _: "pass"
            write_checkpoint(tmp_path, 10, values=b"second", pass_id="second")
        return "pass"

    proxy.rule = save_anew
    # Files go at once: one that was digested before and is sent afterwards, the store refuses.
    with pytest.raises(StorageError, match=r"saved again by a later pass|or the file changed meanwhile"):
        upload.upload_checkpoint(through, claim, 0, 10, folder)
    assert receipts_of(store, claim, 10, nodes=1) is None
    upload_and_commit(store, claim, 10, folder)
    fetch.fetch_checkpoint(store, 10, tmp_path / "back")
    assert (tmp_path / "back/unet/model.safetensors").read_bytes() == safetensors(b"second")


def test_a_folder_of_two_passes_is_not_uploaded(store: Store, claimed: Claims, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / "complete-rank-00001.json").write_text('{"step": 10, "pass": "second", "files": {}}')
    with pytest.raises(Damaged, match="files of different passes"):
        upload.upload_checkpoint(store, claimed(store, 1), 0, 10, folder)


def test_a_receipt_of_an_older_attempt_does_not_count(store: Store, claimed: Claims, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    upload.upload_checkpoint(store, claimed(store, 1), 0, 10, folder)
    assert receipts_of(store, claimed(store, 2), 10, nodes=1) is None


def test_reader_never_sees_a_partial_checkpoint(store: Store, claimed: Claims, save: Save, tmp_path: Path) -> None:
    claim, ended, faults, seen = claimed(store, 1), threading.Event(), [], set()

    def read() -> None:
        while not ended.is_set():
            for step in committed_steps(store)[-1:]:
                try:
                    fetch.fetch_checkpoint(store, step, tmp_path / "reader" / f"{step}")
                    seen.add(step)
                except Exception as error:  # noqa: BLE001
                    faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 6):
        save(store, claim, step)
    wait_until("checkpoint 5 is seen", lambda: 5 in seen or faults)
    ended.set()
    reader.join()
    assert not faults


def test_commit_may_be_repeated_after_any_interruption(
    store: Store, claimed: Claims, save: Save, tmp_path: Path
) -> None:
    claim = claimed(store, 1)
    first = save(store, claim, 10)
    folder = tmp_path / "out-1" / "checkpoint-10"
    assert upload_and_commit(store, claim, 10, folder) == first
    assert committed_steps(store) == [10]


@pytest.mark.parametrize("lost", ["unet/model.safetensors", "nodes/0.json", "manifest.json", "checkpoints.json"])
def test_every_write_survives_the_loss_of_its_replies(
    store: Store, proxy: Proxy, through: Store, claimed: Claims, save: Save, lost: str, tmp_path: Path
) -> None:
    claim, left = claimed(store, 1), [1]

    def lose(request: Request) -> str:
        if request.method == "PUT" and request.key.endswith(lost) and left:
            left.pop()
            return "lose"
        return "pass"

    proxy.rule = lose
    save(through, claim, 10)
    assert not left
    fetch.fetch_checkpoint(store, 10, tmp_path / "back")


def test_a_zombie_can_neither_commit_nor_replace_what_a_newer_attempt_wrote(
    store: Store, claimed: Claims, save: Save, tmp_path: Path
) -> None:
    old = claimed(store, 1)
    folder = write_checkpoint(tmp_path / "zombie", 10, values=b"zombie")
    new = claimed(store, 2)
    save(store, new, 10, values=b"newer")
    with pytest.raises(Fenced):
        upload.upload_checkpoint(store, old, 0, 10, folder)
    receipt = Receipt(step=20, attempt=1, node=0, pass_id="first", files=())
    with pytest.raises(Fenced):
        commit(store, old, [receipt], folder, 1, NOW)
    with pytest.raises(Fenced):
        retire(store, old, Policy(last=1), (), NOW)
    assert committed_steps(store) == [10]
    fetch.fetch_checkpoint(store, 10, tmp_path / "back")
    assert (tmp_path / "back/unet/model.safetensors").read_bytes() == safetensors(b"newer")


def test_what_a_zombie_uploads_after_the_sweep_does_not_hold_up_the_newer_attempt(
    store: Store, claimed: Claims, save: Save, tmp_path: Path
) -> None:
    old = claimed(store, 1)
    new = claimed(store, 2)
    upload.upload_checkpoint(store, old, 0, 10, write_checkpoint(tmp_path / "zombie", 10, values=b"zombie"))
    save(store, new, 10, values=b"newer")
    fetch.fetch_checkpoint(store, 10, tmp_path / "back")
    assert (tmp_path / "back/unet/model.safetensors").read_bytes() == safetensors(b"newer")


def test_an_object_of_unknown_origin_is_never_replaced(store: Store, claimed: Claims, tmp_path: Path) -> None:
    claim = claimed(store, 1)
    store.put("checkpoint-10/unet/model.safetensors", b"somebody's")
    folder = write_checkpoint(tmp_path, 10)
    with pytest.raises(ContentConflict, match="this run did not write it"):
        upload.upload_checkpoint(store, claim, 0, 10, folder)
    assert store.get("checkpoint-10/unet/model.safetensors")[0] == b"somebody's"
    assert not receipts_of(store, claim, 10, 1)


def test_a_checkpoint_that_restore_would_refuse_is_not_uploaded(store: Store, claimed: Claims, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / "optimizer.pt").write_bytes(b"\x80\x04")
    with pytest.raises(Damaged, match=r"optimizer\.pt: only safetensors, JSON"):
        upload.upload_checkpoint(store, claimed(store, 1), 0, 10, folder)
    assert not list(store.list("checkpoint-10/"))


def test_a_file_that_two_nodes_wrote_is_an_error(tmp_path: Path) -> None:
    receipts = [
        Receipt.model_validate({
            "step": 1, "attempt": 1, "node": node,
            "files": [{"path": "a.json", "size": 1, "sha256": "0" * 64, "node": node}],
        })
        for node in (0, 1)
    ]  # fmt: skip
    with pytest.raises(Damaged, match=r"a\.json: nodes 0 and 1 both wrote this file"):
        build_manifest(receipts, tmp_path, 2, NOW)


def test_the_manifest_carries_the_configuration_that_rank_0_wrote(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / "training.yaml").write_text("seed: 7\nmodel: {params: {token_conditioners: {label_to_token: {}}}}\n")
    manifest = build_manifest([Receipt(step=10, attempt=1, node=0, files=())], folder, 1, NOW)
    assert manifest.training is not None
    assert manifest.training.seed == 7
    assert CheckpointManifest.model_validate_json(manifest.model_dump_json(exclude_none=True)) == manifest


def test_metrics_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / "metrics.json").write_text(json.dumps({"loss": "low"}))
    with pytest.raises(Damaged, match=r"metrics\.loss"):
        build_manifest([Receipt(step=10, attempt=1, node=0, files=())], folder, 1, NOW)


def test_an_owner_whose_index_is_gone_changes_nothing_until_it_is_back(store: Store) -> None:
    with pytest.raises(IndexLost, match=r"is gone.*atj checkpoints adopt s3://"):
        index.read_owned(store, Claim(1, "mine"))


def test_marks_are_read_behind_a_proxy_that_writes_header_names_as_go_does(
    store: Store, through: Store, proxy: Proxy, claimed: Claims, tmp_path: Path
) -> None:
    proxy.spell = str.title
    claim, folder = claimed(through, 1), write_checkpoint(tmp_path, 10)
    raw = through.client.head_object(
        Bucket=through.bucket, Key=through.full_key(_written(store, "a", {"sha256": "0"}))
    )  # fmt: skip
    assert raw["Metadata"] == {"Sha256": "0"}
    put_marked(store, claim, "checkpoint-10/unet/model.safetensors", b"of an upload that was interrupted")
    upload_and_commit(through, claim, 10, folder)
    second = claimed(through, 2)
    put_marked(store, claim, "checkpoint-20/unet/model.safetensors")
    assert sweep(through, second, NOW) == (20,)
    fetch.fetch_checkpoint(through, 10, tmp_path / "back")


def _written(store: Store, key: str, metadata: dict[str, str]) -> str:
    store.put_if_absent(key, b"x", metadata)
    return key
