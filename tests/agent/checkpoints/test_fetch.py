"""Restore: every byte verified, damage said loudly, nothing accepted that could run code."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent.checkpoints import claims, exported, fetch, index
from adapter_agent.checkpoints.commit import commit, receipts_of
from adapter_agent.checkpoints.index import Claim
from adapter_agent.checkpoints.upload import upload_checkpoint
from adapter_agent.errors import Damaged, NothingThere
from adapter_agent.storage import content, ranges
from adapter_agent.storage.store import Store
from adapter_agent.syncing.report import Report
from adapter_api.checkpoint import INDEX_KEY
from adapter_api.progress import ExitCode
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import (
    Claims,
    MakeNode,
    Node,
    committed_steps,
    safetensors,
    upload_and_commit,
    write_checkpoint,
)


@pytest.fixture(autouse=True)
def soon_tired(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come back within a test is given up soon."""
    monkeypatch.setattr(ranges, "RANGE_TRIES", 1)


@pytest.fixture
def run(make_node: MakeNode, store: Store) -> Node:
    """Attempt 1 of a run with committed checkpoints at 10 and 20, which its node still has."""
    node = make_node()
    claim = Claim(1, "mine")
    index.claim(store, claim)
    for step in (10, 20):
        upload_and_commit(store, claim, step, write_checkpoint(node.output, step))
    return node


def started(node: Node) -> claims.Start:
    begun = claims.kept(node.folders)
    assert begun is not None
    return begun


def flip_a_bit(store: Store, key: str) -> None:
    body = bytearray(store.get(key)[0])
    body[-1] ^= 1
    store.put(key, bytes(body))


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: flip_a_bit(store, "checkpoint-20/unet/model.safetensors"),
        lambda store: flip_a_bit(store, "checkpoint-20/manifest.json"),
        lambda store: store.delete("checkpoint-20/random_states_0.safetensors"),
    ],
    ids=["bit in weights", "bit in manifest", "file gone"],
)
def test_a_damaged_checkpoint_is_said_loudly_and_the_one_before_it_is_used(
    run: Node, make_node: MakeNode, store: Store, damage: Callable[[Store], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(store)
    second = make_node(attempt=2, work="second")
    assert second.restore() == (0, "")
    assert "CHECKPOINT 20 CANNOT BE USED" in caplog.text
    assert [path.name for path in second.output.iterdir()] == ["checkpoint-10"]
    # Training comes by step 20 again, and must be able to commit it.
    assert committed_steps(store) == [10]
    assert not list(store.list("checkpoint-20/"))
    upload_and_commit(store, started(second).claim, 20, write_checkpoint(second.output, 20, values=b"again"))
    assert committed_steps(store) == [10, 20]


def test_a_damaged_checkpoint_is_kept_aside_named_in_the_index_and_told(
    run: Node, make_node: MakeNode, store: Store
) -> None:
    flip_a_bit(store, "checkpoint-20/unet/model.safetensors")
    damaged = {
        facts.key.removeprefix("checkpoint-20/"): store.get(facts.key)[0] for facts in store.list("checkpoint-20/")
    }
    second = make_node(attempt=2, work="second")
    assert second.restore() == (0, "")
    aside = "quarantine/checkpoint-20-attempt-1"
    assert {facts.key.removeprefix(f"{aside}/"): store.get(facts.key)[0] for facts in store.list(aside)} == damaged
    held = index.read(store)
    assert held is not None
    (record,) = held.index.quarantined
    assert (record.step, record.attempt, record.uri) == (20, 1, store.uri_of(aside))
    assert "its content is damaged" in record.reason
    warning = started(second).warning
    assert warning is not None
    assert warning.startswith("started from checkpoint 10 instead: checkpoint 20 cannot be used")
    assert Report(second.output, store.uri, warning).progress().restore_warning == warning


def test_a_quarantine_that_was_interrupted_is_repeated(
    run: Node, make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    flip_a_bit(store, "checkpoint-20/unet/model.safetensors")
    proxy.rule = lambda request: "slow_down" if "quarantine" in request.key and "metrics" in request.key else "pass"
    second = make_node(attempt=2, work="second", endpoint_url=proxy.url)
    assert second.restore()[0] == ExitCode.FAILED
    assert committed_steps(store) == [10, 20]
    proxy.rule = lambda _: "pass"
    assert second.restore() == (0, "")
    assert committed_steps(store) == [10]
    assert len(list(store.list("quarantine/checkpoint-20-attempt-1/"))) == 7


def test_an_outage_is_not_taken_for_damage(run: Node, make_node: MakeNode, store: Store, proxy: Proxy) -> None:
    proxy.rule = lambda request: "slow_down" if "checkpoint-20/unet" in request.key else "pass"
    second = make_node(attempt=2, work="second", endpoint_url=proxy.url)
    code, message = second.restore()
    assert (code, "the store is overloaded" in message) == (ExitCode.FAILED, True)
    assert committed_steps(store) == [10, 20]


def test_a_restore_that_was_interrupted_fetches_only_what_it_has_not(
    run: Node, make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    proxy.rule = lambda request: "lose_before" if "checkpoint-20/unet" in request.key else "pass"
    second = make_node(attempt=2, work="second", endpoint_url=proxy.url)
    assert second.restore()[0] == ExitCode.FAILED
    proxy.rule = lambda _: "pass"
    before = len(proxy.log)
    assert second.restore() == (0, "")
    fetched = [
        request.key for request in proxy.log[before:] if request.method == "GET" and "checkpoint-20/" in request.key
    ]
    names = sorted(key.partition("checkpoint-20/")[2] for key in fetched)
    assert names == ["manifest.json", "unet/model.safetensors"]
    assert [path.name for path in second.output.iterdir()] == ["checkpoint-20"]


def test_what_an_interrupted_download_of_something_else_left_does_not_become_part_of_a_checkpoint(
    run: Node, make_node: MakeNode
) -> None:
    second = make_node(attempt=2, work="second")
    remains = second.output / ".checkpoint-20.partial" / "unet"
    remains.mkdir(parents=True)
    (remains / "stranger.safetensors").write_bytes(safetensors(b"stranger"))
    assert second.restore() == (0, "")
    assert not (second.folders.checkpoint(20) / "unet" / "stranger.safetensors").exists()


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_checkpoint_of_two_nodes_is_whole_on_every_node_of_another_size(
    make_node: MakeNode, store: Store, nodes: int
) -> None:
    claim = Claim(1, "mine")
    index.claim(store, claim)
    folders = [write_checkpoint(make_node(node=node, nodes=2).output, 10, node) for node in (0, 1)]
    for node, folder in enumerate(folders):
        upload_checkpoint(store, claim, node, 10, folder)
    receipts = receipts_of(store, claim, 10, nodes=2)
    assert receipts is not None
    commit(store, claim, receipts, folders[0], world_size=2, now=datetime.now(UTC))
    for node in range(nodes):
        again = make_node(node=node, nodes=nodes, attempt=2, work=f"again-{node}")
        assert again.restore() == (0, "")
        seals = sorted(path.name for path in again.folders.checkpoint(10).glob("complete-rank-*.json"))
        assert seals == ["complete-rank-00000.json", "complete-rank-00001.json"]


def test_where_every_checkpoint_is_damaged_nothing_starts_afresh_by_itself(
    run: Node, make_node: MakeNode, store: Store
) -> None:
    for step in (10, 20):
        flip_a_bit(store, f"checkpoint-{step}/unet/model.safetensors")
    code, message = make_node(attempt=2, work="second").restore()
    assert (code, "none of the committed checkpoints can be used (steps 20, 10)" in message) == (ExitCode.FAILED, True)
    assert committed_steps(store) == [10, 20]


def test_a_local_checkpoint_that_equals_the_committed_one_is_kept_and_others_go(
    run: Node, store: Store, make_node: MakeNode
) -> None:
    write_checkpoint(run.output, 30)
    kept = run.folders.checkpoint(20)
    inode = kept.stat().st_ino
    again = make_node(attempt=2)
    assert again.restore()[0] == 0
    assert [path.name for path in again.output.glob("*checkpoint-*")] == ["checkpoint-20"]
    assert kept.stat().st_ino == inode


def test_a_local_checkpoint_that_differs_is_replaced(run: Node, make_node: MakeNode) -> None:
    (run.folders.checkpoint(20) / "unet/model.safetensors").write_bytes(safetensors(b"weights 2?"))
    assert make_node(attempt=2).restore()[0] == 0
    assert (run.folders.checkpoint(20) / "unet/model.safetensors").read_bytes() == safetensors(b"weights 20")


def test_another_runs_checkpoint_is_taken_where_there_is_none_of_its_own(
    run: Node, make_node: MakeNode, store: Store, endpoint: str
) -> None:
    other = make_node(work="other")
    other.uri = f"{store.uri}-other"
    resume = (f"--resume-uri={store.uri}", f"--resume-endpoint-url={endpoint}")
    assert other.restore(*resume, "--resume-step=10")[0] == 0
    assert [path.name for path in other.output.iterdir()] == ["checkpoint-10"]
    other.attempt = 2
    assert other.restore(*resume)[0] == 0
    assert [path.name for path in other.output.iterdir()] == ["checkpoint-20"]
    other.attempt = 3
    code, message = other.restore(*resume, "--resume-step=15")
    assert (code, "holds no committed checkpoint 15; committed steps: 10, 20" in message) == (ExitCode.INVALID, True)


@pytest.mark.parametrize("with_manifest", [True, False], ids=["with its manifest", "plain files"])
def test_a_checkpoint_folder_that_was_copied_elsewhere_is_resumed_from_on_every_node(
    make_node: MakeNode, store: Store, endpoint: str, aws: Session, *, with_manifest: bool
) -> None:
    elsewhere = Store(f"{store.uri}-elsewhere/model", aws, endpoint, None)
    files = {
        "trainer_state.json": b'{"step": 30}',
        "model/unet.safetensors": safetensors(b"weights"),
        "complete-rank-00000.json": b'{"step": 30, "files": {}}',
    }
    for path, body in files.items():
        elsewhere.put(path, body)
    if with_manifest:
        manifest = exported.read(elsewhere)
        elsewhere.put("manifest.json", manifest.model_dump_json().encode())
    resume = (f"--resume-uri={elsewhere.uri}", f"--resume-endpoint-url={endpoint}")
    for node in (0, 1):
        place = make_node(node=node, nodes=2)
        assert place.restore(*resume) == (0, "")
        folder = place.folders.checkpoint(30)
        assert {path: (folder / path).read_bytes() for path in files} == files
    code, message = make_node(attempt=2, work="other").restore(*resume, "--resume-step=20")
    assert (code, "holds checkpoint 30, not 20" in message) == (ExitCode.INVALID, True)


def test_an_exported_file_that_is_not_what_its_manifest_says_is_refused(
    make_node: MakeNode, store: Store, endpoint: str, aws: Session
) -> None:
    elsewhere = Store(f"{store.uri}-elsewhere", aws, endpoint, None)
    elsewhere.put("trainer_state.json", b'{"step": 30}')
    elsewhere.put("manifest.json", exported.read(elsewhere).model_dump_json().encode())
    elsewhere.put("trainer_state.json", b'{"step": 31}')
    code, message = make_node().restore(f"--resume-uri={elsewhere.uri}", f"--resume-endpoint-url={endpoint}")
    assert (code, "its content is damaged" in message) == (ExitCode.FAILED, True)


def test_an_address_without_any_checkpoint_says_what_was_looked_for(
    make_node: MakeNode, store: Store, endpoint: str
) -> None:
    resume = (f"--resume-uri={store.uri}-nowhere", f"--resume-endpoint-url={endpoint}")
    code, message = make_node().restore(*resume)
    assert (code, "neither a run's checkpoints.json, nor a checkpoint's manifest.json" in message) == (
        ExitCode.INVALID, True,
    )  # fmt: skip


def rewrite_manifest(store: Store, change: Callable[[list[dict[str, object]]], None]) -> None:
    """A manifest that an attacker who can write to storage has changed, index included."""
    body, _ = store.get("checkpoint-20/manifest.json")
    manifest = json.loads(body)
    change(manifest["files"])
    body = json.dumps(manifest).encode()
    store.put("checkpoint-20/manifest.json", body)
    current = json.loads(store.get(INDEX_KEY)[0])
    current["checkpoints"][-1]["manifestSha256"] = hashlib.sha256(body).hexdigest()
    store.put(INDEX_KEY, json.dumps(current).encode())


@pytest.mark.parametrize("path", ["../../escaped.json", "/etc/escaped.json"])
def test_a_path_that_leaves_the_checkpoint_is_refused(run: Node, store: Store, tmp_path: Path, path: str) -> None:
    rewrite_manifest(store, lambda files: files[0].update(path=path))
    with pytest.raises(Damaged, match="is not a path inside a checkpoint"):
        fetch.fetch_checkpoint(store, 20, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["model.bin", "state.pkl", "model.ckpt", "weights.pth", "run.sh", "a.json/x"])
def test_only_harmless_kinds_of_files_are_accepted(name: str) -> None:
    with pytest.raises(Damaged):
        content.refuse_name(name)


def test_a_pickle_is_refused_by_its_name_before_anything_is_downloaded(run: Node, store: Store, tmp_path: Path) -> None:
    rewrite_manifest(store, lambda files: files[0].update(path="optimizer.pt"))
    with pytest.raises(Damaged, match="only safetensors, JSON, YAML, text and PNG files are accepted"):
        fetch.fetch_checkpoint(store, 20, tmp_path / "back")


@pytest.mark.parametrize(
    "body",
    [b"\x80\x04\x95pickle", b"PK\x03\x04torch zip", b"\x1f\x8bgzip", b"GIF89a\x00"],
    ids=["pickle", "zip", "gzip", "binary"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "config.yaml", "sample.png"])
def test_content_must_be_what_the_name_says(name: str, body: bytes) -> None:
    with pytest.raises(Damaged, match="its content is not what its name says"):
        content.refuse_content(name, body)


@pytest.mark.parametrize("name", ["unet/model.safetensors", "metrics.json"])
def test_a_pickle_under_an_innocent_name_is_refused_by_its_content(
    run: Node, store: Store, tmp_path: Path, name: str
) -> None:
    body = b"\x80\x04\x95pickle"
    store.put(f"checkpoint-20/{name}", body)

    def change(files: list[dict[str, object]]) -> None:
        for file in files:
            if file["path"] == name:
                file.update(size=len(body), sha256=hashlib.sha256(body).hexdigest())

    rewrite_manifest(store, change)
    with pytest.raises(Damaged, match="its content is not what its name says"):
        fetch.fetch_checkpoint(store, 20, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("before", range(508, 513))
def test_text_is_accepted_wherever_the_look_at_it_ends(before: int) -> None:
    content.refuse_content("a.txt", ("a" * before + "€" * 4).encode()[: content.HEAD_BYTES])


def test_what_is_not_there_is_named(store: Store, claimed: Claims, tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match="holds no committed checkpoint; committed steps: none"):
        fetch.fetch_checkpoint(store, None, tmp_path / "back")
    claimed(store, 1)
    with pytest.raises(NothingThere, match="holds no committed checkpoint 5"):
        fetch.fetch_checkpoint(store, 5, tmp_path / "back")
    assert index.read(store) is not None
