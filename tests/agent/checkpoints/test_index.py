"""The index: one owner, changes by compare-and-swap, whatever happens to replies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from adapter_agent.checkpoints import index
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import Damaged, Fenced, TooLarge, WaitedTooLong
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY, CheckpointIndex, IndexEntry
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import Claims, committed_steps


def entry(step: int) -> IndexEntry:
    return IndexEntry(
        step=step, attempt=1, manifest_sha256="0" * 64, committed_at=datetime(2030, 1, 1, tzinfo=UTC), bytes=1
    )


def add(step: int) -> Callable[[CheckpointIndex], CheckpointIndex]:
    return lambda current: (
        current
        if current.entry(step)
        else current.model_copy(update={"checkpoints": (*current.checkpoints, entry(step))})
    )


def test_a_newer_attempt_takes_over_and_keeps_what_is_committed(store: Store, claimed: Claims) -> None:
    first = claimed(store, 1)
    index.change(store, first, add(10))
    second = claimed(store, 2)
    assert committed_steps(store) == [10]
    with pytest.raises(Fenced, match="belongs to attempt 2; attempt 1 stops"):
        index.change(store, first, add(20))
    index.change(store, second, add(20))
    assert committed_steps(store) == [10, 20]


@pytest.mark.parametrize(
    ("late", "owner"), [(Claim(1, "late"), "attempt 2"), (Claim(2, "twin"), "another run of attempt 2")]
)
def test_an_older_attempt_and_a_twin_cannot_claim(store: Store, claimed: Claims, late: Claim, owner: str) -> None:
    claimed(store, 2)
    with pytest.raises(Fenced, match=owner):
        index.claim(store, late)


def test_a_claim_may_be_repeated(store: Store, claimed: Claims) -> None:
    assert claimed(store, 1) == claimed(store, 1)


def test_of_many_claims_at_once_one_wins(store: Store) -> None:
    def try_claim(number: int) -> str | None:
        try:
            index.claim(store, Claim(1, f"nonce-{number}"))
        except Fenced:
            return None
        return f"nonce-{number}"

    with ThreadPoolExecutor(6) as pool:
        winners = [nonce for nonce in pool.map(try_claim, range(6)) if nonce]
    held = index.read(store)
    assert held is not None
    assert winners == [held.index.nonce]


def test_changes_that_race_are_all_made(store: Store, claimed: Claims) -> None:
    owner = claimed(store, 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda step: index.change(store, owner, add(step)), range(8)))
    assert sorted(committed_steps(store)) == list(range(8))


@pytest.mark.parametrize("lost", [1, 4], ids=["one reply", "more replies than the SDK tries again"])
def test_a_write_whose_reply_is_lost_happens_once(store: Store, proxy: Proxy, through: Store, lost: int) -> None:
    remaining = {"claim": lost, "change": lost}

    def lose(request: Request) -> str:
        if request.method == "PUT":
            phase = "change" if b'"step"' in request.body else "claim"
            if remaining[phase] > 0:
                remaining[phase] -= 1
                return "lose"
        return "pass"

    proxy.rule = lose
    owner = Claim(1, "mine")
    index.claim(through, owner)
    index.change(through, owner, add(10))
    assert committed_steps(store) == [10]


def test_a_lost_reply_does_not_hide_a_newer_attempt(
    store: Store, proxy: Proxy, through: Store, claimed: Claims
) -> None:
    owner = claimed(store, 1)

    def take_over(request: Request) -> str:
        if request.method == "PUT" and b'"step"' in request.body:
            proxy.rule = lambda _: "pass"
            held = index.read(store)
            assert held is not None
            assert held.index.attempt == 1
            claimed(store, 2)
        return "pass"

    proxy.rule = take_over
    with pytest.raises(Fenced):
        index.change(through, owner, add(10))
    assert committed_steps(store) == []


def test_other_nodes_wait_for_the_claim_and_not_for_ever(
    store: Store, claimed: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "CLAIM_WAIT_SECONDS", 0.3)
    claimed(store, 1)
    with pytest.raises(WaitedTooLong, match="node 0 of attempt 2"):
        index.await_claim(store, 2)
    owner = claimed(store, 2)
    assert index.await_claim(store, 2) == owner
    with pytest.raises(Fenced):
        index.await_claim(store, 1)


def test_a_damaged_index_is_never_replaced(store: Store) -> None:
    store.put(INDEX_KEY, b'{"attempt": -1}')
    with pytest.raises(Damaged, match="is not an index of checkpoints"):
        index.claim(store, Claim(1, "mine"))
    assert store.get(INDEX_KEY)[0] == b'{"attempt": -1}'


def test_an_index_that_has_not_changed_is_not_sent_again(
    proxy: Proxy, through: Store, store: Store, claimed: Claims
) -> None:
    owner = claimed(store, 1)
    received: list[int] = []
    proxy.seen = lambda request, status, body: received.append(len(body) if request.key.endswith(INDEX_KEY) else 0)
    first = index.read_owned(through, owner)
    whole = sum(received)
    assert index.read_owned(through, owner) == first
    assert sum(received) == whole > 0
    index.change(store, owner, add(10))
    assert committed_steps(through) == [10]


def test_an_index_that_nobody_could_read_again_is_not_written(
    store: Store, claimed: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = claimed(store, 1)
    index.change(store, owner, add(10))
    monkeypatch.setattr("adapter_agent.storage.store.MAX_DOCUMENT_BYTES", 500)
    with pytest.raises(TooLarge, match="keep fewer checkpoints"):
        index.change(store, owner, lambda current: add(30)(add(20)(current)))
    assert committed_steps(store) == [10]
