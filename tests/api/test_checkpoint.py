"""What object storage holds is checked as strictly as what users write: it may be another program's."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from adapter_api.checkpoint import (
    CheckpointIndex,
    CheckpointManifest,
    FileEntry,
    IndexEntry,
    folder_name,
    receipt_name,
    step_of,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DIGEST = "0" * 64


def file(path: str, size: int = 1) -> FileEntry:
    return FileEntry(path=path, size=size, sha256=DIGEST, node=0)


def entry(step: int) -> IndexEntry:
    return IndexEntry(step=step, attempt=1, manifest_sha256=DIGEST, committed_at=NOW, bytes=1)


@pytest.mark.parametrize("path", ["model.safetensors", "unet/model.safetensors", "nodes/0.json", "a b", "..a", "a..b"])
def test_paths_inside_a_checkpoint_are_accepted(path: str) -> None:
    assert file(path).path == path


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", "a/.", "a/", "a\\b", "..\\x",
        "C:\\x", "a\nb", "a\0b", "\u202ea", "ä", "a" * 513,
    ],
)  # fmt: skip
def test_paths_that_could_leave_a_checkpoint_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        file(path)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError):
        FileEntry(path="a", size=1, sha256=digest, node=0)


@pytest.mark.parametrize("size", [-1, 2**53, 1.5, True, "1"])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValidationError):
        FileEntry.model_validate({"path": "a", "size": size, "sha256": DIGEST, "node": 0})


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_manifest_of_another_schema_is_refused(version: object) -> None:
    with pytest.raises(ValidationError, match="schemaVersion"):
        CheckpointIndex.model_validate({"schemaVersion": version, "attempt": 1, "nonce": "n"})


def test_a_manifest_survives_being_stored() -> None:
    files = (file("a", 2), file("b/c", 3))
    manifest = CheckpointManifest(step=5, attempt=1, nodes=1, world_size=1, created_at=NOW, files=files)
    assert CheckpointManifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert '"worldSize":1' in manifest.model_dump_json()
    assert manifest.bytes == 5


def test_a_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        IndexEntry(step=1, attempt=1, manifest_sha256=DIGEST, committed_at=NOW, bytes=1, metrics={"loss": float("nan")})


def test_the_index_knows_its_newest_checkpoint_and_each_by_its_step() -> None:
    index = CheckpointIndex(attempt=1, nonce="n", checkpoints=(entry(100), entry(200)))
    assert index.newest == entry(200)
    assert index.entry(100) == entry(100)
    assert index.entry(150) is None
    assert CheckpointIndex(attempt=1, nonce="n").newest is None


@pytest.mark.parametrize("step", [0, 7, 10**15])
def test_folders_are_named_by_their_step(step: int) -> None:
    assert step_of(folder_name(step)) == step


@pytest.mark.parametrize(
    "name", ["checkpoint-", "checkpoint-01", "checkpoint--1", "checkpoint-1.tmp", "x-checkpoint-1", "checkpoint-１"]
)
def test_other_folders_are_no_checkpoints(name: str) -> None:
    assert step_of(name) is None


def test_receipts_of_nodes_do_not_collide() -> None:
    assert [receipt_name(node) for node in (0, 1)] == ["nodes/0.json", "nodes/1.json"]
