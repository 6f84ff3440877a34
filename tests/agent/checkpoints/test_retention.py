"""Retention: index first; later manifest, then data. What a policy keeps is shown with the policy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapter_agent.checkpoints import claims, index, retention
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import EndpointUnreachable, Fenced
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import CheckpointIndex, IndexEntry
from adapter_api.retention import Policy
from adapter_api.sections import KeepBest
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.foreign import ACCELERATE
from tests.agent.support.node import Claims, committed_steps, put_marked, upload_and_commit, write_checkpoint

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
            put_marked(store, claim, f"checkpoint-{step}/{name}")
    index.change(store, claim, lambda current: current.model_copy(update={"checkpoints": entries(10, 20, 30, 40)}))
    return claim


def test_the_index_forgets_first_and_when_its_time_has_come_the_manifest_goes_before_the_data(
    store: Store, owner: Claim, proxy: Proxy, through: Store
) -> None:
    retention.retire(through, owner, Policy(last=3), (), NOW)
    assert committed_steps(store) == [20, 30, 40]
    retention.delete_due(through, owner, NOW - timedelta(seconds=1))
    assert len(list(store.list("checkpoint-10/"))) == 3
    retention.delete_due(through, owner, NOW)
    writes = [request for request in proxy.log if request.method in {"PUT", "POST", "DELETE"}]
    assert [request.method for request in writes] == ["PUT", "POST", "POST", "PUT"]
    assert [request.key.endswith("checkpoints.json") for request in writes] == [True, False, False, True]
    assert b"checkpoint-10/manifest.json" in writes[1].body
    assert b"checkpoint-10/a.safetensors" in writes[2].body
    assert not list(store.list("checkpoint-10/"))
    assert len(list(store.list("checkpoint-20/"))) == 3
    assert index.current(store, owner).removals == ()


def test_interrupted_before_the_deletion_it_goes_on_where_it_was(
    store: Store, owner: Claim, proxy: Proxy, through: Store
) -> None:
    retention.retire(store, owner, Policy(last=2), (), NOW)
    proxy.rule = lambda request: "lose" if request.method == "GET" and "list-type" in request.query else "pass"
    with pytest.raises(EndpointUnreachable):
        retention.delete_due(through, owner, NOW)
    assert list(store.list("checkpoint-10/"))
    assert retention.delete_due(store, owner, NOW).removals == ()
    assert not [facts for step in (10, 20) for facts in store.list(f"checkpoint-{step}/")]


def test_the_next_attempt_sweeps_what_was_removed_unless_it_may_still_be_fetched(
    store: Store, owner: Claim, claimed: Claims
) -> None:
    retention.retire(store, owner, Policy(last=3), (), NOW)
    retention.retire(store, owner, Policy(last=2), (), NOW + timedelta(minutes=5))
    second = claimed(store, 2)
    assert retention.sweep(store, second, NOW) == (10,)
    assert [removal.step for removal in index.current(store, second).removals] == [20]
    assert retention.delete_due(store, second, NOW + timedelta(minutes=5)).removals == ()
    assert not list(store.list("checkpoint-20/"))


def test_going_back_below_a_removed_step_sweeps_it_at_once(store: Store, owner: Claim, claimed: Claims) -> None:
    index.change(store, owner, lambda current: current.without([30], NOW + timedelta(minutes=5)))
    second = claimed(store, 2)
    index.change(store, second, lambda current: current.model_copy(update={"checkpoints": current.checkpoints[:-1]}))
    assert retention.sweep(store, second, NOW) == (30, 40)
    assert index.current(store, second).removals == ()


def test_pinned_checkpoints_and_the_one_in_use_stay(store: Store, owner: Claim) -> None:
    def pin(current: CheckpointIndex) -> CheckpointIndex:
        pinned = tuple(entry.model_copy(update={"pinned": entry.step == 20}) for entry in current.checkpoints)
        return current.model_copy(update={"checkpoints": pinned})

    index.change(store, None, pin)
    retention.retire(store, owner, Policy(last=1), {10}, NOW)
    assert committed_steps(store) == [10, 20, 40]


def test_a_step_that_is_committed_anew_is_not_deleted(store: Store, owner: Claim) -> None:
    retention.retire(store, owner, Policy(last=3), (), NOW)
    index.change(store, owner, lambda current: current.model_copy(update={"checkpoints": entries(10, 20, 30, 40)}))
    assert retention.delete_due(store, owner, NOW).removals == ()
    assert list(store.list("checkpoint-10/"))


def test_a_zombie_deletes_nothing(store: Store, owner: Claim, claimed: Claims) -> None:
    retention.retire(store, owner, Policy(last=3), (), NOW)
    claimed(store, 2)
    with pytest.raises(Fenced):
        retention.delete_due(store, owner, NOW)
    with pytest.raises(Fenced):
        retention.retire(store, owner, Policy(last=1), (), NOW)
    assert list(store.list("checkpoint-10/"))
    assert committed_steps(store) == [20, 30, 40]


def test_a_metric_that_no_checkpoint_has_is_named_with_those_that_are_there() -> None:
    policy = Policy(last=1, best=KeepBest(metric="accuracy"))
    scored = tuple(entry.model_copy(update={"metrics": {"loss": 1.0, "gain": 2.0}}) for entry in entries(10))
    current = CheckpointIndex(attempt=1, nonce="", checkpoints=scored)
    warning = retention.metric_missing(current, policy)
    assert warning is not None
    assert "no checkpoint has 'accuracy'" in warning
    assert warning.endswith("there are: gain, loss")
    assert retention.metric_missing(current, Policy(last=1, best=KeepBest(metric="loss"))) is None


def test_the_sweep_leaves_what_is_committed_and_what_is_no_checkpoint(
    store: Store, owner: Claim, claimed: Claims
) -> None:
    for key in ("checkpoint-50/a.safetensors", "checkpoint-best/a", "samples/step-1.png", "checkpoint-050/a"):
        put_marked(store, owner, key)
    assert retention.sweep(store, claimed(store, 2), NOW) == (50,)
    folders = {facts.key.partition("/")[0] for facts in store.list()} - {"checkpoints.json"}
    committed = {f"checkpoint-{step}" for step in (10, 20, 30, 40)}
    assert folders == {*committed, "checkpoint-best", "samples", "checkpoint-050"}


def test_a_zombie_sweeps_nothing(store: Store, owner: Claim, claimed: Claims) -> None:
    put_marked(store, replace(owner, attempt=0), "checkpoint-50/a.safetensors")
    claimed(store, 2)
    with pytest.raises(Fenced):
        retention.sweep(store, owner, NOW)
    assert list(store.list("checkpoint-50/"))


def test_folders_of_other_programs_survive_every_attempt(store: Store, owner: Claim, claimed: Claims) -> None:
    for key in ACCELERATE:
        store.put(key, b"theirs")
    put_marked(store, owner, "checkpoint-500/ours.json")
    assert retention.sweep(store, claimed(store, 2), NOW) == (500,)
    assert {facts.key for facts in store.list("checkpoint-500/")} == set(ACCELERATE)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"attempt": "1"}, {"attempt": "1", "run": "another"}, {"attempt": "2", "run": "nonce-1"}, {"attempt": "1.0", "run": "nonce-1"}],
    ids=["no mark", "an older build's", "another run's", "of this attempt", "no number"],
)  # fmt: skip
def test_what_is_not_provably_an_older_attempts_of_this_run_is_not_swept(
    store: Store, owner: Claim, claimed: Claims, metadata: dict[str, str]
) -> None:
    assert owner.run == "nonce-1"
    store.put_if_absent("checkpoint-50/a.safetensors", b"x", metadata)
    assert retention.sweep(store, claimed(store, 2), NOW) == ()
    assert store.get("checkpoint-50/a.safetensors")[0] == b"x"


def test_a_removed_checkpoint_goes_without_what_others_have_put_beside_it(store: Store, owner: Claim) -> None:
    store.put("checkpoint-10/README.md", b"a person's notes")
    retention.retire(store, owner, Policy(last=3), (), NOW)
    retention.delete_due(store, owner, NOW)
    assert [facts.key for facts in store.list("checkpoint-10/")] == ["checkpoint-10/README.md"]


def test_what_an_older_build_committed_is_deleted_when_its_time_has_come(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    claim = replace(claimed(store, 1), run="")
    for step in (10, 20):
        upload_and_commit(store, claim, step, write_checkpoint(tmp_path, step))
    retention.retire(store, claim, Policy(last=1), (), NOW)
    retention.delete_due(store, claim, NOW)
    assert not list(store.list("checkpoint-10/"))


def test_a_checkpoint_goes_by_its_manifest_on_a_store_that_keeps_no_metadata(
    store: Store, claimed: Claims, tmp_path: Path
) -> None:
    claim = claimed(store, 1)
    for step in (10, 20):
        upload_and_commit(store, claim, step, write_checkpoint(tmp_path, step))
    for facts in list(store.list("checkpoint-10/")):
        store.put(facts.key, store.get(facts.key)[0])
    store.put("checkpoint-10/metrics.json", b"another size")
    retention.retire(store, claim, Policy(last=1), (), NOW)
    retention.delete_due(store, claim, NOW)
    assert [facts.key for facts in store.list("checkpoint-10/")] == ["checkpoint-10/metrics.json"]


def test_only_announcements_and_probes_of_older_attempts_go(store: Store, owner: Claim, claimed: Claims) -> None:
    ours = claims.Start(attempt=1, nonce=owner.nonce, run=owner.run)
    claims.announce(store, ours)
    claims.announce(store, claims.Start(attempt=0, nonce="theirs", run="another"))
    probes = [f"probe-{attempt}-{'0' * 32}" for attempt in (1, 3)]
    theirs = ["attempts/1-notes.txt", "attempts/1.json.bak", "probe-1.txt", "probe-1-results/a.csv", "attempts/1/uploads/list.txt"]  # fmt: skip
    for key in (*probes, *theirs):
        store.put(key, b"0\n")
    retention.sweep(store, claimed(store, 2), NOW)
    left = {facts.key for prefix in ("attempts", "probe") for facts in store.list(prefix)}
    assert left == {"attempts/0.json", probes[1], *theirs}
