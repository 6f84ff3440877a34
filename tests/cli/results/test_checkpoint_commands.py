"""`atj checkpoints` on a real store: what each command tells, changes and refuses."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from boto3.session import Session
from typer.testing import CliRunner, Result

from adapter_agent.checkpoints import index
from adapter_agent.checkpoints.claims import Source, Start, announce
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import StorageError
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY, folder_name
from atj.errors import CommandError
from atj.main import app
from atj.results.address import located
from tests.agent.support.node import committed_steps, safetensors, upload_and_commit, write_checkpoint
from tests.agent.support.seaweed import BUCKET, KEY, SECRET, seaweed

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed(tmp_path_factory.mktemp("weed")) as url:
        yield url


@pytest.fixture
def store(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An output with the committed checkpoints 10, 20 and 30, of an attempt that began at 10."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    uri = f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}".replace("_", "-")
    store, claim = Store(uri, Session(KEY, SECRET), endpoint, None), Claim(1, "nonce")
    index.claim(store, claim)
    for step in (10, 20, 30):
        folder = write_checkpoint(tmp_path / "run", step)
        (folder / "extra.txt").write_text(f"{step}\n") if step == 30 else None
        entry = upload_and_commit(store, claim, step, folder)
        if step == 10:
            announce(store, Start(attempt=1, nonce="nonce", source=Source(
                uri=uri, step=10, manifest_sha256=entry.manifest_sha256)))  # fmt: skip
    return store


class Atj:
    """The command in this process, which spares a second each time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(self, verb: str, *arguments: str | Path) -> Result:
        argv = ["checkpoints", verb, self.store.uri, *map(str, arguments), f"--endpoint-url={self.store.endpoint}"]
        return CliRunner().invoke(app, argv)

    def refused(self, verb: str, *arguments: str | Path) -> str:
        error = self(verb, *arguments).exception
        assert isinstance(error, CommandError | StorageError), error
        return str(error)


@pytest.fixture
def atj(store: Store) -> Atj:
    return Atj(store)


def test_a_pinned_checkpoint_is_shown_and_the_pin_can_be_taken_away(atj: Atj, store: Store) -> None:
    assert atj("pin", "--step", "20").output.rstrip().endswith("checkpoint-20: pinned")
    assert "was pinned already" in atj("pin", "--step", "20").output
    assert "checkpoint-20 (pinned)" in atj("list").output
    assert [each["pinned"] for each in json.loads(atj("list", "--output", "json").output)] == [False, True, False]
    assert atj("unpin", "--step", "20").exit_code == 0
    assert "(pinned)" not in atj("list").output
    held = index.read(store)
    assert held is not None
    assert (held.index.attempt, held.index.nonce) == (1, "nonce")
    assert "which checkpoint? Give --step" in atj.refused("pin")
    assert "holds no committed checkpoint 15" in atj.refused("pin", "--step", "15")


def test_deletion_leaves_neither_entry_nor_file(atj: Atj, store: Store) -> None:
    assert "checkpoint-20: deleted" in atj("delete", "--step", "20").output
    assert committed_steps(store) == [10, 30]
    assert not list(store.list("checkpoint-20/"))
    assert index.current(store, None).removals == ()


@pytest.mark.parametrize(
    ("step", "why"),
    [("30", "is the newest checkpoint"), ("20", "is pinned"), ("10", "is what the newest attempt has started from")],
)
def test_what_is_needed_is_deleted_only_by_force(atj: Atj, store: Store, step: str, why: str) -> None:
    atj("pin", "--step", "20")
    assert f"{why}" in (message := atj.refused("delete", "--step", step))
    assert message.endswith("--force")
    assert committed_steps(store) == [10, 20, 30]
    assert atj("delete", "--step", step, "--force").exit_code == 0
    assert int(step) not in committed_steps(store)


def test_an_interrupted_deletion_is_ended_by_prune(atj: Atj, store: Store) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    index.change(store, None, lambda current: current.without([20], datetime.now(UTC)).without([10], later))
    pruned = atj("prune").output
    assert "checkpoint-20: deleted" in pruned
    assert "checkpoint-10: may still be fetched until" in pruned
    assert list(store.list("checkpoint-10/"))
    assert "checkpoint-10: deleted" in atj("prune", "--now").output
    assert "nothing to delete" in atj("prune").output
    assert {facts.key.partition("/")[0] for facts in store.list("checkpoint-")} == {"checkpoint-30"}


def test_verify_reads_every_byte_and_names_what_is_damaged(atj: Atj, store: Store) -> None:
    assert "every byte is as it was committed" in atj("verify").output
    weights = "checkpoint-20/unet/model.safetensors"
    body, _ = store.get(weights)
    store.put(weights, body[:-1] + bytes([body[-1] ^ 1]))
    store.delete("checkpoint-20/versions.json")
    store.put("checkpoint-10/manifest.json", b"{}")
    result = atj("verify", "--all")
    assert isinstance(result.exception, CommandError)
    assert str(result.exception).startswith("damaged: step 10, 20.")
    told = result.output
    assert "checkpoint-10: DAMAGED" in told
    assert "manifest.json: has SHA-256" in told or "manifest.json" in told
    assert "unet/model.safetensors: " in told
    assert "its content is damaged" in told
    assert "versions.json: " in told
    assert "checkpoint-30: " in told
    assert "damaged" in atj("list").output
    result = atj("verify", "--all", "-o", "json")
    assert isinstance(result.exception, CommandError)
    found = {each["step"]: each for each in json.loads(result.stdout)}
    assert {step: each["whole"] for step, each in found.items()} == {10: False, 20: False, 30: True}
    assert {fault["path"] for fault in found[20]["faults"]} == {"unet/model.safetensors", "versions.json"}


def test_a_broken_download_is_gone_on_with(atj: Atj, store: Store, tmp_path: Path) -> None:
    whole = atj("get", "--step", "30", "--to", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    begun = tmp_path / "begun" / ".checkpoint-30.partial"
    shutil.copytree(tmp_path / "whole" / "checkpoint-30", begun)
    half = (begun / "unet/model.safetensors").read_bytes()[:20]
    (begun / "unet/model.safetensors").unlink()
    (begun / "unet/.model.safetensors.partial").write_bytes(half)
    (begun / "of-another-checkpoint.json").write_text("{}")
    result = atj("get", "--step", "30", "--to", tmp_path / "begun")
    assert result.exit_code == 0, result.output
    files = {path.name: path.read_bytes() for path in (tmp_path / "begun").rglob("*") if path.is_file()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file()}


def test_two_checkpoints_are_compared(atj: Atj, store: Store) -> None:
    told = atj("diff", "--tensors").output
    assert "checkpoint-20  ->  " in told
    lines = {line.split()[1]: line.split()[0] for line in told.splitlines() if line[:1] in "+-~=" and line.strip()}
    assert lines["extra.txt"] == "+"
    assert lines["unet/model.safetensors"] == "~"
    assert lines["versions.json"] == "="
    assert "1 added" in told
    assert "loss" in told
    assert "unet/model.safetensors: w: other values" in told
    assert "w: other values" not in atj("diff", "--from", "20", "--to", "20").output
    assert "is the oldest checkpoint" in atj.refused("diff", "--to", "10")
    found = json.loads(atj("diff", "-o", "json").stdout)
    changes = {each["path"]: each["change"] for each in found["files"]}
    assert (changes["extra.txt"], changes["unet/model.safetensors"], changes["versions.json"]) == (
        "added",
        "changed",
        "same",
    )
    assert found["before"].endswith("checkpoint-20")


def test_checkpoints_of_two_outputs_are_compared(atj: Atj, store: Store) -> None:
    told = atj("diff", f"{store.uri}/{folder_name(10)}", "--from", "30").output
    assert f"{store.uri}/checkpoint-30  ->  {store.uri}/checkpoint-10" in told
    assert "1 removed" in told


def test_tensors_of_another_shape_are_named(atj: Atj, store: Store, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", 40, values=b"longer than before")
    upload_and_commit(store, Claim(1, "nonce"), 40, folder)
    assert safetensors(b"weights 30") != safetensors(b"longer than before")
    assert "w: U8 [10] became U8 [18]" in atj("diff").output


@pytest.mark.parametrize(
    ("text", "uri", "step"),
    [
        ("s3://bucket/run", "s3://bucket/run", None),
        ("s3://bucket/run/checkpoint-20/", "s3://bucket/run", 20),
        ("s3://bucket/run/attempts/3/checkpoint-20", "s3://bucket/run", 20),
    ],
)
def test_an_address_names_an_output_or_one_of_its_checkpoints(text: str, uri: str, step: int | None) -> None:
    with located(text, "http://127.0.0.1:9") as (committed, named):
        assert (committed.uri, named) == (uri, step)


def test_a_lost_index_is_rebuilt_by_adopt_and_what_does_not_verify_is_named(atj: Atj, store: Store) -> None:
    store.put("checkpoint-20/unet/model.safetensors", b"damaged")
    store.put("checkpoint-500/optimizer.bin", b"theirs")
    store.delete(INDEX_KEY)
    assert f"if it was lost: atj checkpoints adopt {store.uri}" in atj.refused("list")
    told = " ".join(atj("adopt").output.split())
    assert "checkpoint-10: " in told
    assert "whole, in the index again" in told
    assert "checkpoint-20: stays out of the index, and as it is: unet/model.safetensors" in told
    assert "checkpoint-500: stays out of the index" in told
    assert "names 2 checkpoints; the next attempt after 1 continues" in told
    assert committed_steps(store) == [10, 30]
    assert "has an index" in atj.refused("adopt")


def test_adopt_takes_an_output_and_not_a_checkpoint(store: Store) -> None:
    argv = ["checkpoints", "adopt", f"{store.uri}/checkpoint-10", f"--endpoint-url={store.endpoint}"]
    error = CliRunner().invoke(app, argv).exception
    assert isinstance(error, CommandError)
    assert "give the output address that contains it" in str(error)
