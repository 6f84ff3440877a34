"""An index that is lost or damaged is a recoverable event, at every step of a run's life; nothing of anybody's is deleted."""

import copy
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent import parallel
from adapter_agent.checkpoints import adopt, attempt_index, claims, fetch, index, retention
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import ContentConflict, Fenced, IndexDamaged, IndexLost, NothingThere, StorageError
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY
from adapter_api.progress import ExitCode
from adapter_api.retention import Policy
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.foreign import ACCELERATE
from tests.agent.support.node import (
    Claims,
    MakeNode,
    committed_steps,
    safetensors,
    stop,
    upload_and_commit,
    write_checkpoint,
)
from tests.support.waiting import wait_until

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def claim(store: Store, claimed: Claims, tmp_path: Path) -> Claim:
    """Of attempt 1, which has announced itself and committed checkpoints 10 and 20."""
    claim = claimed(store, 1)
    claims.announce(store, claims.Start(attempt=1, nonce=claim.nonce, run=claim.run))
    for step in (10, 20):
        upload_and_commit(store, claim, step, write_checkpoint(tmp_path / "first", step))
    return claim


def contents(store: Store) -> dict[str, bytes]:
    return {facts.key: store.get(facts.key)[0] for facts in store.list()}


def test_an_output_with_folders_of_another_program_is_refused_before_anything_is_written(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    for key in ACCELERATE:
        store.put(key, b"theirs")
    before = contents(store)
    code, message = make_node(endpoint_url=proxy.url).restore()
    assert code == ExitCode.INVALID
    assert {request.method for request in proxy.log} == {"GET"}
    assert "holds checkpoint-500, and no checkpoints.json" in message
    assert f"atj checkpoints adopt {store.uri}" in message
    assert contents(store) == before


def test_a_folder_that_has_become_empty_is_nobodys(make_node: MakeNode, store: Store) -> None:
    store.put("checkpoint-500/a", b"x")
    store.delete("checkpoint-500/a")
    store.put("checkpoint-600/", b"")
    assert make_node().restore() == (0, "")


def test_a_run_whose_index_is_lost_is_refused_and_goes_on_after_it_was_rebuilt(
    make_node: MakeNode, store: Store, claim: Claim
) -> None:
    store.delete(INDEX_KEY)
    before = contents(store)
    code, message = make_node(attempt=2).restore()
    assert (code, "atj checkpoints adopt" in message) == (ExitCode.INVALID, True)
    assert contents(store) == before
    adopted = adopt.adopt(store)
    assert (adopted.index.attempt, adopted.index.nonce, adopted.index.run) == (1, claim.nonce, claim.run)
    again = make_node(attempt=2)
    assert again.restore() == (0, "")
    assert (again.output / "checkpoint-20" / "manifest.json").is_file()
    assert committed_steps(store) == [10, 20]


def test_an_attempt_that_goes_on_commits_again_when_its_index_was_rebuilt(
    store: Store, claim: Claim, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "first", 30)
    store.delete(INDEX_KEY)
    with pytest.raises(IndexLost, match="is gone; attempt 1 changes nothing there until it is back"):
        upload_and_commit(store, claim, 30, folder)
    adopt.adopt(store)
    upload_and_commit(store, claim, 30, folder)
    assert committed_steps(store) == [10, 20, 30]


def test_an_agent_whose_index_is_lost_waits_for_it_while_training_goes_on(make_node: MakeNode, store: Store) -> None:
    node = make_node()
    assert node.restore() == (0, "")
    process = node.sync()
    write_checkpoint(node.output, 10)
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    store.delete(INDEX_KEY)
    write_checkpoint(node.output, 20)
    wait_until("the agent says so", lambda: "atj checkpoints adopt" in node.get("/progress"))
    adopt.adopt(store)
    wait_until("checkpoint 20 is committed", lambda: committed_steps(store) == [10, 20])
    assert stop(process)[0] == 0


def test_a_damaged_index_is_refused_and_kept_aside_when_it_is_rebuilt(
    make_node: MakeNode, store: Store, claim: Claim
) -> None:
    torn = store.get(INDEX_KEY)[0][:-20]
    store.put(INDEX_KEY, torn)
    code, message = make_node(attempt=2).restore()
    assert (code, f"atj checkpoints adopt {store.uri}" in message) == (ExitCode.INVALID, True)
    adopt.adopt(store)
    assert committed_steps(store) == [10, 20]
    assert [store.get(facts.key)[0] for facts in store.list("quarantine/")] == [torn]
    index.read_owned(store, claim)


def test_what_does_not_verify_stays_out_of_the_index_and_as_it_is(store: Store, claim: Claim) -> None:
    store.delete(INDEX_KEY)
    store.put("checkpoint-20/unet/model.safetensors", b"damaged")
    for key in ACCELERATE:
        store.put(key, b"theirs")
    before = contents(store)
    adopted = adopt.adopt(store)
    assert committed_steps(store) == [10]
    assert [each.uri.rpartition("/")[2] for each in adopted.refused] == ["checkpoint-500", "checkpoint-20"]
    assert {key: body for key, body in contents(store).items() if key != INDEX_KEY} == before


def test_an_index_is_rebuilt_only_from_this_products_checkpoints(store: Store) -> None:
    for key in ACCELERATE:
        store.put(key, b"theirs")
    with pytest.raises(NothingThere, match=r"holds nothing to rebuild an index from[^\n]*\n.*checkpoint-500"):
        adopt.adopt(store)
    assert store.head(INDEX_KEY) is None


def test_an_index_that_can_be_read_is_never_rebuilt(store: Store, claim: Claim) -> None:
    with pytest.raises(ContentConflict, match="has an index"):
        adopt.adopt(store)


def test_an_index_that_comes_back_meanwhile_stands(store: Store, proxy: Proxy, through: Store, claim: Claim) -> None:
    kept = store.get(INDEX_KEY)[0]
    store.delete(INDEX_KEY)

    def put_back(request: Request) -> str:
        if request.method == "PUT" and request.key.endswith(INDEX_KEY):
            store.put(INDEX_KEY, kept)
        return "pass"

    proxy.rule = put_back
    with pytest.raises(ContentConflict, match="appeared or changed meanwhile"):
        adopt.adopt(through)
    assert store.get(INDEX_KEY)[0] == kept


def test_a_zombie_is_fenced_by_the_rebuilt_index_too(
    store: Store, claim: Claim, claimed: Claims, tmp_path: Path
) -> None:
    second = claimed(store, 2)
    claims.announce(store, claims.Start(attempt=2, nonce=second.nonce, run=second.run))
    store.delete(INDEX_KEY)
    adopt.adopt(store)
    with pytest.raises(Fenced):
        upload_and_commit(store, claim, 30, write_checkpoint(tmp_path / "zombie", 30))
    index.read_owned(store, second)


def test_an_older_attempt_does_not_begin_anew_where_a_newer_ones_index_was_lost(store: Store, claimed: Claims) -> None:
    second = claimed(store, 2)
    claims.announce(store, claims.Start(attempt=2, nonce=second.nonce, run=second.run))
    store.delete(INDEX_KEY)
    with pytest.raises(IndexLost, match=r"holds attempts/2\.json"):
        index.claim(store, Claim(1, "late"))


def test_the_folder_that_the_job_resumes_from_is_never_swept(
    make_node: MakeNode, store: Store, endpoint: str, claim: Claim
) -> None:
    """The checkpoint of an attempt before, which no index names."""
    index.change(store, claim, lambda current: current.model_copy(update={"checkpoints": ()}))
    second = make_node(attempt=2)
    resume = (f"--resume-uri={store.uri}/checkpoint-20", f"--resume-endpoint-url={endpoint}")
    assert second.restore(*resume) == (0, "")
    assert (second.output / "checkpoint-20").is_dir()
    folders = {facts.key.partition("/")[0] for facts in store.list("checkpoint-")}
    assert folders == {"checkpoint-20"}


def test_a_run_that_an_older_build_began_goes_on_and_its_leftovers_stay(
    store: Store, claim: Claim, make_node: MakeNode, tmp_path: Path
) -> None:
    held = index.read(store)
    assert held is not None
    store.put(INDEX_KEY, held.index.model_dump_json(by_alias=True, exclude={"run"}).encode())
    old = replace(claim, run="")
    folder = write_checkpoint(tmp_path / "old", 30, values=b"never committed")
    store.put_if_absent("checkpoint-30/unet/model.safetensors", b"torn", {"attempt": "1", "sha256": "0" * 64})
    upload_and_commit(store, old, 20, tmp_path / "first" / "checkpoint-20")
    second = make_node(attempt=2)
    assert second.restore() == (0, "")
    assert store.get("checkpoint-30/unet/model.safetensors")[0] == b"torn"
    begun = claims.kept(second.folders)
    assert begun is not None
    assert begun.run
    upload_and_commit(store, begun.claim, 30, folder)
    assert committed_steps(store) == [10, 20, 30]
    fetch.fetch_checkpoint(store, 30, tmp_path / "back")


@dataclass
class Life:
    """What a run does from its first attempt to its third, one step after the other, each request told to `on_request`."""

    store: Store
    folder: Path
    kept: set[int] = field(default_factory=set)
    """Steps whose commit was acknowledged and that no policy has removed."""

    def live(self, on_request: Callable[[], None]) -> None:
        told = lambda **_: on_request()  # noqa: E731
        events = self.store.client.meta.events
        events.register("before-send.s3", told)
        try:
            self.attempt(1, (10, 20))
            self.attempt(2, (30,))
        finally:
            events.unregister("before-send.s3", told)

    def attempt(self, number: int, steps: tuple[int, ...]) -> None:
        nonce = f"nonce-{number}"
        claim = Claim(number, nonce)
        current = index.claim(self.store, claim)
        claim = replace(claim, run=current.run)
        restored = self.folder / f"restored-{number}"
        fetch.fetch_newest_usable(self.store, current, lambda step: restored / f"checkpoint-{step}")
        retention.sweep(self.store, claim, NOW)
        claims.announce(self.store, claims.Start(attempt=number, nonce=nonce, run=claim.run))
        for step in steps:
            upload_and_commit(self.store, claim, step, self._saved(number, step))
            self.kept = {step}
            retention.retire(self.store, claim, Policy(last=1), (), NOW)
            retention.delete_due(self.store, claim, NOW)

    def _saved(self, number: int, step: int) -> Path:
        folder = self.folder / f"saved-{number}" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(safetensors(f"{number} {step}".encode()))
        return folder


def lose(store: Store) -> None:
    store.delete(INDEX_KEY)


def damage(store: Store) -> None:
    found = store.head(INDEX_KEY)
    if found is not None:
        store.put(INDEX_KEY, store.get(INDEX_KEY)[0][: found.size // 2])


EVERY = int(os.environ.get("CRASH_RUNS", "5")) > 20
"""Whether both faults strike at each request; otherwise they take turns."""


@pytest.mark.parametrize(("fault", "first"), [(lose, 1), (damage, 2)], ids=["lost", "damaged"])
def test_an_index_that_is_lost_or_damaged_at_any_request_of_a_run_loses_no_committed_step(
    store: Store, aws: Session, tmp_path: Path, fault: Callable[[Store], None], first: int
) -> None:
    def place(name: str) -> Life:
        return Life(Store(f"{store.uri}-{name}", aws, store.endpoint, None), tmp_path / name)

    requests: list[None] = []
    place("undisturbed").live(lambda: requests.append(None))
    assert len(requests) > 40

    def disturbed(number: int) -> str:
        life = place(f"{number}")
        direct = copy.copy(store)  # the same place without being told to anybody; making a client takes long
        direct.uri, direct.prefix = life.store.uri, life.store.prefix
        direct.put("theirs/notes.txt", b"theirs")
        left = iter(range(number - 1, -1, -1))
        try:
            life.live(lambda: fault(direct) if next(left, None) == 0 else None)
            outcome = "went on"
        except StorageError as error:
            outcome = (
                "refused"
                if error.exit_code == ExitCode.INVALID and "atj checkpoints adopt" in str(error)
                else str(error)
            )
        if direct.holds_any("attempts/") or direct.holds_any("checkpoint-"):
            with suppress(ContentConflict):  # it has been written anew since, or was never struck
                adopt.adopt(direct)
        elif direct.head(INDEX_KEY) is not None:
            lose(direct)  # of a run that has written nothing else
        there = set(committed_steps(direct))
        assert life.kept <= there, f"{fault.__name__} at request {number}"
        life.attempt(3, (40,))
        for step in committed_steps(direct):
            fetch.fetch_checkpoint(direct, step, tmp_path / f"{number}" / f"fetched-{step}")
        assert committed_steps(direct)[-1] == 40
        assert direct.get("theirs/notes.txt")[0] == b"theirs"
        return outcome

    struck = range(1 if EVERY else first, len(requests) + 1, 1 if EVERY else 2)
    assert set(parallel.each(disturbed, struck, 3)) == {"went on", "refused"}


def test_without_conditions_a_lost_or_damaged_index_is_rebuilt_too(store: Store, aws: Session, tmp_path: Path) -> None:
    plain = Store(store.uri, aws, store.endpoint, None, conditional=False)
    owner = Claim(1, "nonce-1")
    owner = replace(owner, run=index.claim(plain, owner).run)
    upload_and_commit(plain, owner, 10, write_checkpoint(tmp_path, 10))
    (key,) = attempt_index.keys(attempt_index.look(plain), 1)
    plain.put(key, b"{")
    with pytest.raises(IndexDamaged, match="atj checkpoints adopt"):
        index.claim(plain, Claim(2, "nonce-2"))
    adopt.adopt(store)
    assert committed_steps(store) == [10]
    plain.delete(*attempt_index.keys(attempt_index.look(plain), 1))
    with pytest.raises(IndexLost, match=r"holds attempts/1/checkpoint-10"):
        index.claim(plain, Claim(2, "nonce-2"))
    adopt.adopt(store)
    index.claim(plain, Claim(2, "nonce-2"))
    assert committed_steps(plain) == [10]
