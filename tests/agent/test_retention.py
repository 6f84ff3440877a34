"""Retention: index first, then manifest, then data; never the newest."""

from datetime import UTC, datetime

import pytest

from adapter_agent import index, retention
from adapter_agent.errors import EndpointUnreachable, Fenced
from adapter_agent.index import Claim
from adapter_agent.store import Store
from adapter_api.checkpoint import CheckpointIndex, IndexEntry
from tests.agent.faulty_proxy import Proxy
from tests.agent.node import Claims, committed_steps

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def entries(*steps: int) -> tuple[IndexEntry, ...]:
    return tuple(
        IndexEntry(step=step, attempt=1, manifest_sha256="0" * 64, committed_at=NOW, bytes=1) for step in steps
    )


@pytest.fixture
def owner(store: Store, claimed: Claims) -> Claim:
    """The claim on an output with four committed checkpoints."""
    claim = claimed(store, 1)
    for step in (10, 20, 30, 40):
        for name in ("a.safetensors", "manifest.json", "nodes/0.json"):
            store.put(f"checkpoint-{step}/{name}", b"x")
    index.change(store, claim, lambda current: current.model_copy(update={"checkpoints": entries(10, 20, 30, 40)}))
    return claim


@pytest.mark.parametrize(("keep", "kept"), [(1, [40]), (2, [30, 40]), (9, [10, 20, 30, 40]), (0, [40])])
def test_the_newest_are_kept_and_the_newest_of_all_always(keep: int, kept: list[int]) -> None:
    current = CheckpointIndex(attempt=1, nonce="", checkpoints=entries(10, 20, 30, 40))
    gone = {entry.step for entry in retention.expired(current, keep)}
    assert sorted({10, 20, 30, 40} - gone) == kept


def test_the_index_forgets_before_the_manifest_goes_and_the_manifest_before_the_data(
    store: Store, owner: Claim, proxy: Proxy, through: Store
) -> None:
    assert retention.retain(through, owner, 3) == (10,)
    writes = [request for request in proxy.log if request.method in {"PUT", "POST", "DELETE"}]
    assert [request.method for request in writes] == ["PUT", "POST", "POST"]
    assert writes[0].key.endswith("checkpoints.json")
    assert b"checkpoint-10/manifest.json" in writes[1].body
    assert b"checkpoint-10/a.safetensors" in writes[2].body
    assert committed_steps(store) == [20, 30, 40]
    assert not list(store.list("checkpoint-10/"))
    assert len(list(store.list("checkpoint-20/"))) == 3


def test_interrupted_after_the_index_the_rest_is_swept_by_the_next_attempt(
    store: Store, owner: Claim, proxy: Proxy, through: Store, claimed: Claims
) -> None:
    proxy.rule = lambda request: "lose" if request.method == "GET" and "list-type" in request.query else "pass"
    with pytest.raises(EndpointUnreachable):
        retention.retain(through, owner, 2)
    assert committed_steps(store) == [30, 40]
    assert list(store.list("checkpoint-10/"))
    assert retention.sweep(store, claimed(store, 2)) == (10, 20)
    assert not [facts for step in (10, 20) for facts in store.list(f"checkpoint-{step}/")]


def test_the_sweep_leaves_what_is_committed_and_what_is_no_checkpoint(store: Store, owner: Claim) -> None:
    for key in ("checkpoint-50/a.safetensors", "checkpoint-best/a", "samples/step-1.png", "checkpoint-050/a"):
        store.put(key, b"x")
    assert retention.sweep(store, owner) == (50,)
    folders = {facts.key.partition("/")[0] for facts in store.list()} - {"checkpoints.json"}
    committed = {f"checkpoint-{step}" for step in (10, 20, 30, 40)}
    assert folders == {*committed, "checkpoint-best", "samples", "checkpoint-050"}


def test_a_zombie_sweeps_nothing(store: Store, owner: Claim, claimed: Claims) -> None:
    store.put("checkpoint-50/a.safetensors", b"x")
    claimed(store, 2)
    with pytest.raises(Fenced):
        retention.sweep(store, owner)
    assert list(store.list("checkpoint-50/"))
