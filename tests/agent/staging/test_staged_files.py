"""Data: staged once, each file complete or absent; uploaded by the command line."""

from pathlib import Path

import pytest

from adapter_agent.errors import Damaged, NothingThere
from adapter_agent.staging import staged_files
from adapter_agent.storage.store import ObjectFacts, Store
from tests.agent.support.faulty_proxy import Proxy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("train.txt", "images/0.png", "images/1.png", "images/größe 1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_folder_arrives_as_it_was_sent_and_is_not_fetched_again(store: Store, data: Path, tmp_path: Path) -> None:
    assert staged_files.upload_folder(store, data) == 4
    assert staged_files.upload_folder(store, data) == 0
    target = tmp_path / "data"
    assert staged_files.stage_folder(store, target) == 4
    assert all((target / name).read_text() == name for name in ("train.txt", "images/0.png", "images/größe 1.png"))
    assert staged_files.stage_folder(store, target) == 0


def test_only_what_changed_here_or_there_is_fetched_again(store: Store, data: Path, tmp_path: Path) -> None:
    staged_files.upload_folder(store, data)
    target = tmp_path / "data"
    staged_files.stage_folder(store, target)
    (data / "train.txt").write_text("TRAIN.TXT")
    assert staged_files.upload_folder(store, data) == 1
    (target / "images/0.png").write_text("spoilt")
    (target / "images/1.png").unlink()
    assert staged_files.stage_folder(store, target) == 3
    assert (target / "train.txt").read_text() == "TRAIN.TXT"
    assert (target / "images/0.png").read_text() == "images/0.png"


def test_an_empty_address_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match=r"holds no data; correct spec\.data\.s3\.uri"):
        staged_files.stage_folder(store, tmp_path / "data")


@pytest.mark.parametrize("key", ["../b", "/etc/b", "a/../../b", "a//b", "."])
def test_a_key_that_leaves_the_folder_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    # SeaweedFS refuses such keys itself; other stores take them.
    monkeypatch.setattr(store, "list", lambda: iter([ObjectFacts(key, 1, "etag")]))
    with pytest.raises(Damaged, match="is not a path inside a folder"):
        staged_files.stage_folder(store, tmp_path / "data")


def test_an_interrupted_download_is_continued(
    store: Store, data: Path, tmp_path: Path, proxy: Proxy, through: Store
) -> None:
    staged_files.upload_folder(store, data)
    proxy.rule = lambda request: "lose" if request.key.endswith("images/1.png") else "pass"
    target = tmp_path / "data"
    with pytest.raises(Exception, match=r"images/1\.png at .*cannot be reached"):
        staged_files.stage_folder(through, target)
    assert not (target / "images/1.png").exists()
    assert staged_files.stage_folder(store, target) == 1


def test_the_markers_that_consoles_make_of_folders_are_no_files_at_any_depth(
    store: Store, data: Path, tmp_path: Path
) -> None:
    staged_files.upload_folder(store, data)
    for folder in ("", "images/", "images/empty/"):
        store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{folder}")
    assert "" in {facts.key for facts in store.list()}
    assert staged_files.stage_folder(store, tmp_path / "data") == 4
