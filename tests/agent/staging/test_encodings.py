"""Encodings in object storage: sent once, fetched once, and what is damaged there is refused, remade and replaced."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_agent import local_files
from adapter_agent.errors import BucketMissing, StorageFull
from adapter_agent.staging import encodings
from adapter_agent.staging.encodings import Exchange, stage
from adapter_agent.storage.store import Store
from adapter_api.layout import PROGRESS_FILE
from adapter_api.progress import Progress
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import MakeNode, safetensors
from tests.support.waiting import wait_until

LATENTS = f"latents-{'0' * 16}/{'a' * 32}.safetensors"
TEXT = f"text-{'1' * 16}/{'b' * 32}.safetensors"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """What a trainer has encoded, and what it has begun to write."""
    folder = tmp_path / "cache"
    for path in (LATENTS, TEXT):
        write(folder, path, path.encode())
    (folder / TEXT).with_name(".begun.host-1.tmp").write_bytes(b"half")
    return folder


def write(folder: Path, path: str, content: bytes) -> None:
    """As the trainer writes: complete or absent."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(".new.tmp")
    aside.write_bytes(safetensors(content))
    aside.replace(file)


def send_all(store: Store, folder: Path, record: Path) -> int:
    uploads = Exchange(store, folder, record)
    count = 0
    while uploads.send_next(look=True):
        count += 1
    return count


def keys(store: Store) -> list[str]:
    return sorted(facts.key for facts in store.list())


def test_another_node_gets_what_one_has_encoded_and_nothing_moves_twice(
    store: Store, cache: Path, tmp_path: Path
) -> None:
    assert send_all(store, cache, tmp_path / "agent") == 2
    assert keys(store) == [LATENTS, TEXT]
    assert send_all(store, cache, tmp_path / "agent") == 0
    other = tmp_path / "other"
    assert stage(store, other / "cache", other / "agent") == 2
    assert all((other / "cache" / path).read_bytes() == (cache / path).read_bytes() for path in (LATENTS, TEXT))
    assert stage(store, other / "cache", other / "agent") == 0
    assert send_all(store, other / "cache", other / "agent") == 0


def test_new_files_are_noticed_without_reading_the_whole_folder_again(
    store: Store, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Exchange(store, cache, tmp_path / "agent")
    while uploads.send_next():
        pass
    with monkeypatch.context() as patch:
        patch.setattr(local_files, "files_below", lambda _: pytest.fail("it looked again"))
        assert not uploads.send_next()
    write(cache, TEXT.replace("b", "c"), b"more")
    assert uploads.send_next()
    assert TEXT.replace("b", "c") in keys(store)


def test_nodes_get_from_each_other_what_they_encode_at_the_same_time(
    make_node: MakeNode, output_uri: str, endpoint: str
) -> None:
    nodes = [make_node(node=number, nodes=2) for number in range(2)]
    options = [f"--cache-uri={output_uri}-encodings", f"--cache-endpoint-url={endpoint}"]
    for node in nodes:
        assert node.restore(*options) == (0, "")
        progress = Progress(phase="encoding", updated_at=datetime.now(UTC))
        (node.output / PROGRESS_FILE).write_text(progress.model_dump_json(by_alias=True), encoding="utf-8")
        node.sync(*options)
    caches = [node.folders.cache for node in nodes]
    write(caches[0], LATENTS, b"of node 0")
    write(caches[1], TEXT, b"of node 1")
    wait_until(
        "each node has the other's shard", lambda: (caches[0] / TEXT).exists() and (caches[1] / LATENTS).exists()
    )
    assert (caches[0] / TEXT).read_bytes() == (caches[1] / TEXT).read_bytes()
    assert (caches[0] / LATENTS).read_bytes() == (caches[1] / LATENTS).read_bytes()


def test_what_the_trainer_refused_is_not_fetched_again_but_replaced(
    store: Store, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "LOOK_SECONDS", 0.0)
    send_all(store, cache, tmp_path / "agent")
    other = tmp_path / "other"
    exchange = Exchange(store, other, tmp_path / "other-agent")
    assert exchange.fetch_some() == 2
    assert exchange.fetch_some() == 0
    assert not exchange.send_next(look=True)
    (other / LATENTS).unlink()
    assert exchange.fetch_some() == 0
    write(other, LATENTS, b"made anew")
    assert exchange.send_next(look=True)
    assert store.get(LATENTS)[0] == (other / LATENTS).read_bytes()


def test_an_address_that_holds_nothing_yet_is_no_fault(store: Store, tmp_path: Path) -> None:
    assert stage(store, tmp_path / "cache", tmp_path / "agent") == 0


def test_what_is_no_encoding_is_left_where_it_is(store: Store, tmp_path: Path) -> None:
    for key in ("notes.txt", "latents/x.safetensors", f"latents-{'0' * 16}/x.bin"):
        store.put(key, b"anything")
    assert stage(store, tmp_path / "cache", tmp_path / "agent") == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["other bytes", "cut short", "without a digest"])
def test_a_damaged_object_is_refused_and_replaced_by_what_was_made_anew(
    store: Store, cache: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    send_all(store, cache, tmp_path / "agent")
    found, body = store.head(LATENTS), store.get(LATENTS)[0]
    assert found is not None
    broken = {"other bytes": body[:-1] + b"?", "cut short": body[:-3], "without a digest": body}[damage]
    metadata = {} if damage == "without a digest" else dict(found.metadata)
    store.client.put_object(Bucket=store.bucket, Key=store.full_key(LATENTS), Body=broken, Metadata=metadata)
    other, record = tmp_path / "other", tmp_path / "other-agent"
    assert stage(store, other, record) == 1
    assert not (other / LATENTS).exists()
    assert "refused, and encoded again if needed" in caplog.text
    assert LATENTS in caplog.text
    write(other, LATENTS, b"made anew")
    assert send_all(store, other, record) == 1
    third = tmp_path / "third"
    assert stage(store, third, tmp_path / "third-agent") == 2
    assert (third / LATENTS).read_bytes() == (other / LATENTS).read_bytes()


def test_what_the_trainer_found_damaged_after_it_was_fetched_is_replaced(
    store: Store, cache: Path, tmp_path: Path
) -> None:
    send_all(store, cache, tmp_path / "agent")
    other, record = tmp_path / "other", tmp_path / "other-agent"
    stage(store, other, record)
    (other / LATENTS).unlink()
    write(other, LATENTS, b"made anew")
    assert send_all(store, other, record) == 1
    assert store.get(LATENTS)[0] == (other / LATENTS).read_bytes()


def test_an_object_that_another_run_has_made_stays(store: Store, cache: Path, tmp_path: Path) -> None:
    send_all(store, cache, tmp_path / "agent")
    other = tmp_path / "other"
    write(other, LATENTS, b"the same, rounded in another way")
    assert send_all(store, other, tmp_path / "other-agent") == 1
    assert store.get(LATENTS)[0] == (cache / LATENTS).read_bytes()


def test_a_killed_upload_is_gone_on_with(
    store: Store, through: Store, proxy: Proxy, cache: Path, tmp_path: Path
) -> None:
    proxy.rule = lambda request: "lose_before" if request.method == "PUT" and request.key.endswith(TEXT) else "pass"
    with pytest.raises(Exception, match=r"^data\.params\.cache\.uri: .*text-"):
        send_all(through, cache, tmp_path / "agent")
    assert keys(store) == [LATENTS]
    assert send_all(store, cache, tmp_path / "agent") == 1
    assert keys(store) == [LATENTS, TEXT]


def test_what_cannot_be_used_is_named_with_its_field(
    store: Store, cache: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Store.connect("s3://no-such-bucket/cache", endpoint)
    with pytest.raises(BucketMissing, match=r"^data\.params\.cache\.uri: s3://no-such-bucket/cache at"):
        stage(lost, tmp_path / "other", tmp_path / "other-agent")
    send_all(store, cache, tmp_path / "agent")

    def full(*_: object, **__: object) -> None:
        raise StorageFull("downloading: no space left on /work; free some or use a larger volume")

    monkeypatch.setattr(encodings, "receive", full)
    with pytest.raises(StorageFull, match=r"^data\.params\.cache\.uri: downloading: no space left"):
        stage(store, tmp_path / "other", tmp_path / "other-agent")
