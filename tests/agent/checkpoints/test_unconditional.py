"""A store without conditional writes: attempts write below prefixes of their own, and zombies stay harmless.

The store is a real one behind a proxy that takes every condition away (and signs anew, since headers are signed).
"""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from boto3.session import Session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from adapter_agent.checkpoints import attempt_index, claims, fetch, index, probe, retention
from adapter_agent.checkpoints.index import Claim
from adapter_agent.errors import ConditionalWritesIgnored, Fenced, ObjectMissing, OtherLayout, OwnerOnly
from adapter_agent.storage.store import Store
from adapter_api.retention import Policy
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import (
    MakeNode,
    committed_steps,
    put_marked,
    stop,
    upload_and_commit,
    write_checkpoint,
)
from tests.agent.support.seaweed import KEY, SECRET

Open = Callable[..., Store]


@pytest.fixture
def plain(endpoint: str) -> Iterator[Proxy]:
    """A store that ignores conditions."""
    proxy = Proxy(endpoint)

    def without_conditions(method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        dropped = {"if-match", "if-none-match", "authorization", "x-amz-date", "host", "expect"}
        kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
        request = AWSRequest(method=method, url=f"{endpoint}{path}", headers=kept, data=body)
        S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
        return dict(request.headers.items())

    proxy.headers = without_conditions
    yield proxy
    proxy.close()


@pytest.fixture
def open_store(plain: Proxy, output_uri: str, aws: Session) -> Open:
    """A store of its own for every process of an attempt."""
    return lambda conditional=False: Store(output_uri, aws, plain.url, None, conditional=conditional)


def claim(store: Store, attempt: int) -> Claim:
    wanted = Claim(attempt, f"nonce-{attempt}")
    return replace(wanted, run=index.claim(store, wanted).run)


def test_it_is_refused_unless_the_job_says_so(open_store: Open) -> None:
    with pytest.raises(ConditionalWritesIgnored, match=r"set output\.s3\.conditionalWrites: false"):
        probe.probe(open_store(conditional=True), 1)


def test_each_attempt_writes_below_its_own_prefix_and_readers_find_what_counts(
    open_store: Open, tmp_path: Path
) -> None:
    first = open_store()
    owner = claim(first, 1)
    upload_and_commit(first, owner, 10, write_checkpoint(tmp_path, 10))
    second = open_store()
    newer = claim(second, 2)
    upload_and_commit(second, newer, 20, write_checkpoint(tmp_path, 20))
    reader = open_store(conditional=True)
    assert committed_steps(reader) == [10, 20]
    assert [entry.folder for entry in index.current(reader, None).checkpoints] == [
        "attempts/1/checkpoint-10", "attempts/2/checkpoint-20",
    ]  # fmt: skip
    for step in (10, 20):
        assert fetch.fetch_checkpoint(reader, step, tmp_path / f"fetched-{step}").step == step
    assert not [facts.key for facts in reader.list() if not facts.key.startswith("attempts/")]


def test_what_a_zombie_commits_is_in_no_index_that_anyone_reads(open_store: Open, tmp_path: Path) -> None:
    old = open_store()
    zombie = claim(old, 1)
    upload_and_commit(old, zombie, 10, write_checkpoint(tmp_path, 10))
    held = index.read(old)
    assert held is not None
    assert held.written is not None
    new = open_store()
    owner = claim(new, 2)
    late = held.index.model_copy(update={"checkpoints": ()})
    attempt_index.write(old, late, held.written)  # a write that was under way when it was stopped
    assert committed_steps(new) == [10]
    folder = write_checkpoint(tmp_path, 20)
    with pytest.raises(Fenced, match="belongs to attempt 2"):
        upload_and_commit(old, zombie, 20, folder)
    with pytest.raises(Fenced):
        retention.retire(old, zombie, Policy(last=1), (), datetime.now(UTC))
    assert committed_steps(new) == [10]
    upload_and_commit(new, owner, 20, folder)
    assert committed_steps(new) == [10, 20]


def test_a_commit_is_not_believed_once_a_newer_attempt_has_announced_itself(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = open_store(), open_store()
    zombie = claim(old, 1)
    write = attempt_index.write

    def announced_meanwhile(*arguments: object) -> None:
        attempt_index.announce(new, 2)
        write(*arguments)  # type: ignore[arg-type]

    folder = write_checkpoint(tmp_path, 10)
    monkeypatch.setattr(attempt_index, "write", announced_meanwhile)
    with pytest.raises(Fenced):
        upload_and_commit(old, zombie, 10, folder)
    monkeypatch.undo()
    with pytest.raises(Fenced):
        claim(open_store(), 1)
    claim(new, 2)


@pytest.mark.parametrize("seed", range(4))
def test_of_attempts_that_race_no_acknowledged_commit_is_lost(open_store: Open, tmp_path: Path, seed: int) -> None:
    """Four attempts, each in a thread of its own, which pause at random before any of their requests."""
    chance = random.Random(seed)
    folders = {step: write_checkpoint(tmp_path, step) for step in range(1, 25)}

    def attempt(number: int, pauses: list[float]) -> list[int]:
        store, acknowledged = open_store(), []
        waits = iter(pauses)
        store.client.meta.events.register("before-send.s3", lambda **_: time.sleep(next(waits, 0.0)))
        time.sleep((number - 1) * 0.6)
        try:
            owner = claim(store, number)
            for step in range(6 * number - 5, 6 * number + 1):
                upload_and_commit(store, owner, step, folders[step])
                acknowledged.append(step)
        except Fenced:
            pass
        return acknowledged

    plans = [[chance.choice([0, 0, 0, 0.05, 0.4]) for _ in range(400)] for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        acknowledged = list(pool.map(attempt, range(1, 5), plans))
    reader = open_store(conditional=True)
    assert {step for steps in acknowledged for step in steps} <= set(committed_steps(reader))
    assert acknowledged[3] == list(range(19, 25))
    for entry in index.current(reader, None).checkpoints:
        fetch.fetch(reader, fetch.read_manifest(reader, entry), tmp_path / f"fetched-{entry.step}")


def test_the_sweep_removes_what_older_attempts_left(open_store: Open, tmp_path: Path) -> None:
    old = open_store()
    first = claim(old, 1)
    upload_and_commit(old, first, 10, write_checkpoint(tmp_path, 10))
    put_marked(old, first, "attempts/1/checkpoint-20/a.safetensors")
    claims.announce(old, claims.Start(attempt=1, nonce=first.nonce, run=first.run))
    new = open_store()
    second = claim(new, 2)
    assert retention.sweep(new, second, datetime.now(UTC)) == (20,)
    folders = {facts.key.rpartition("/")[0] for facts in new.list()}
    assert folders == {"attempts/2", *(f"attempts/1/checkpoint-10{part}" for part in ("", "/nodes", "/unet"))}
    assert {facts.key for facts in new.list("attempts/2/")} == {"attempts/2/intent", "attempts/2/index-2.json"}
    upload_and_commit(new, second, 20, write_checkpoint(tmp_path, 20))
    retention.retire(new, second, Policy(last=1), (), datetime.now(UTC))
    retention.delete_due(new, second, datetime.now(UTC))
    assert {facts.key.split("/")[1] for facts in new.list("attempts/")} == {"2"}


def test_a_process_that_goes_on_for_a_killed_one_writes_past_what_may_still_arrive(open_store: Open) -> None:
    killed, follower = open_store(), open_store()
    owner = claim(killed, 1)
    seen = attempt_index.look(killed)
    before = index.current(killed, owner)
    ours = before.model_copy(update={"nonce": owner.nonce, "checkpoints": ()})
    attempt_index.write(follower, ours, seen)
    attempt_index.write(killed, before.model_copy(update={"nonce": "late"}), seen)
    assert index.current(follower, owner).nonce == owner.nonce


def test_the_two_ways_of_writing_are_not_mixed_in_one_output(store: Store, open_store: Open) -> None:
    claim(open_store(), 1)
    with pytest.raises(OtherLayout, match=r"conditionalWrites: false; set it so"):
        claim(store, 2)
    other = f"{store.uri}-other"
    conditional, unconditional = (
        Store(other, Session(KEY, SECRET), store.endpoint, None, conditional=way) for way in (True, False)
    )
    claim(conditional, 1)
    with pytest.raises(OtherLayout, match=r"conditionalWrites: true; set it so"):
        claim(unconditional, 2)


def test_only_the_run_that_owns_it_may_change_the_index(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    upload_and_commit(store, claim(store, 1), 10, write_checkpoint(tmp_path, 10))
    with pytest.raises(OwnerOnly, match="only the run that owns it may change its index"):
        index.change(open_store(conditional=True), None, lambda current: current.without([10], datetime.now(UTC)))


def test_two_nodes_train_and_go_on_in_a_second_attempt(plain: Proxy, make_node: MakeNode, open_store: Open) -> None:
    nodes = [make_node(node=node, nodes=2, endpoint_url=plain.url) for node in (0, 1)]
    flag = "--no-conditional-writes"
    assert [node.restore(flag)[0] for node in nodes] == [0, 0]
    syncs = [node.sync(flag, "--keep-last=1") for node in nodes]
    for node in nodes:
        write_checkpoint(node.output, 10, node.node)
    assert [stop(process)[0] for process in reversed(syncs)] == [0, 0]
    assert committed_steps(open_store(conditional=True)) == [10]
    again = replace(
        nodes[0], attempt=2, nodes=1, folders=replace(nodes[0].folders, work=nodes[0].folders.work / "again")
    )
    assert again.restore(flag) == (0, "")
    assert (again.output / "checkpoint-10" / "manifest.json").is_file()
    with pytest.raises(ObjectMissing):
        open_store().get("attempts/1/index-1.json")
