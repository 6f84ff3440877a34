"""The agent as real processes beside a trainer that only writes folders."""

import json
import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_agent import options, priority
from adapter_agent.checkpoints import claims, fetch
from adapter_agent.commands import sync
from adapter_agent.errors import CredentialsRefused, EndpointUnreachable, Fenced, NothingThere
from adapter_agent.storage.multipart import ignore_bytes
from adapter_agent.storage.store import Store
from adapter_agent.syncing import pipeline
from adapter_agent.syncing.extras import Extras
from adapter_agent.syncing.report import Report
from adapter_api.progress import ExitCode
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import MakeNode, committed_steps, end, stop, write_checkpoint
from tests.agent.support.seaweed import KEY, SECRET
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process


def test_two_nodes_commit_on_sigterm_what_they_have_and_the_next_attempt_continues_from_it(
    make_node: MakeNode, store: Store, tmp_path: Path
) -> None:
    nodes = [make_node(node=node, nodes=2) for node in (0, 1)]
    # Both at once: node 1 waits for what node 0 announces.
    restores = [node.start("restore") for node in reversed(nodes)]
    assert [end(process)[0] for process in restores] == [0, 0]
    syncs = [node.sync() for node in nodes]
    for node in nodes:
        write_checkpoint(node.output, 10, node.node)
    results = [stop(process) for process in (syncs[1], syncs[0])]
    assert [code for code, _ in results] == [0, 0], results
    assert committed_steps(store) == [10]
    manifest = fetch.fetch_checkpoint(store, 10, tmp_path / "fetched")
    assert {entry.path: entry.node for entry in manifest.files} == {
        "complete-rank-00000.json": 0, "complete-rank-00001.json": 1, "metrics.json": 0, "versions.json": 0,
        "random_states_0.safetensors": 0, "random_states_1.safetensors": 1, "unet/model.safetensors": 0,
    }  # fmt: skip
    assert manifest.metrics == {"loss": pytest.approx(1 / 11)}
    assert (manifest.versions, manifest.world_size, manifest.nodes) == ({"torch": "2"}, 2, 2)

    again = [make_node(node=node, nodes=2, attempt=2, work=f"again-{node}") for node in (0, 1)]
    assert [node.restore()[0] for node in again] == [0, 0]
    for node in again:
        whole = {path.relative_to(node.output / "checkpoint-10").as_posix()
                 for path in (node.output / "checkpoint-10").rglob("*") if path.is_file()}  # fmt: skip
        assert whole == {entry.path for entry in manifest.files} | {"manifest.json"}


def test_killed_in_the_middle_of_an_upload_the_next_attempt_sweeps_and_goes_on(
    make_node: MakeNode, store: Store, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def hang_at_the_weights(request: Request) -> str:
        return (
            "hang"
            if request.method == "PUT" and request.key.endswith("checkpoint-20/unet/model.safetensors")
            else "pass"
        )

    node = make_node(endpoint_url=proxy.url)
    assert node.restore()[0] == 0
    agent = node.sync()
    write_checkpoint(node.output, 10)
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    proxy.rule = hang_at_the_weights
    write_checkpoint(node.output, 20)
    wait_until("an upload hangs", proxy.hanging.is_set)
    wait_until(
        "a part of checkpoint 20 is stored", lambda: any("checkpoint-20/" in facts.key for facts in store.list())
    )
    agent.kill()
    end(agent)
    assert committed_steps(store) == [10]

    second = make_node(attempt=2)
    assert second.restore()[0] == 0
    assert "checkpoint-20, which the index does not name" in caplog.text
    assert not [facts.key for facts in store.list("checkpoint-20/")]
    assert [path.name for path in second.output.glob("*checkpoint-*")] == ["checkpoint-10"]
    agent = second.sync()
    write_checkpoint(second.output, 20, values=b"other weights")
    assert stop(agent)[0] == 0
    assert committed_steps(store) == [10, 20]


def test_a_zombie_of_an_older_attempt_is_fenced_and_commits_nothing(make_node: MakeNode, store: Store) -> None:
    zombie = make_node()
    assert zombie.restore()[0] == 0
    agent = zombie.sync()
    assert make_node(attempt=2, work="second").restore()[0] == 0
    write_checkpoint(zombie.output, 10)
    code, errors = end(agent)
    assert code == ExitCode.FENCED
    assert "belongs to attempt 2; attempt 1 stops" in errors
    assert committed_steps(store) == []
    assert zombie.restore()[0] == ExitCode.FENCED


def test_a_zombie_whose_uploads_the_store_refuses_learns_that_it_is_fenced(
    make_node: MakeNode, proxy: Proxy, through: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie = make_node()
    assert zombie.restore()[0] == 0
    write_checkpoint(zombie.output, 10)
    chosen = options.parse(zombie.argv("sync")[3:])
    assert isinstance(chosen, options.SyncOptions)
    extras = Extras(through, zombie.output, 1, 0, ignore_bytes)
    begun, report = claims.required(zombie.folders, 1), Report(zombie.output, through.uri, None)
    turns = pipeline.Pipeline(through, begun, chosen, report, extras, lambda: datetime.now(UTC))
    proxy.rule = lambda request: "slow_down" if request.method == "PUT" else "pass"
    with pytest.raises(EndpointUnreachable, match="SlowDown"):
        turns.turn(last=False)
    assert make_node(attempt=2, work="second").restore()[0] == 0
    monkeypatch.setattr(pipeline, "OWNER_SECONDS", 0.0)
    with pytest.raises(Fenced, match="belongs to attempt 2"):
        turns.turn(last=False)


def test_a_store_that_goes_away_is_reported_and_tried_again_until_it_is_back(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    node = make_node(endpoint_url=proxy.url)
    assert node.restore()[0] == 0
    agent = node.sync()
    proxy.rule = lambda _: "lose"
    write_checkpoint(node.output, 10)
    wait_until("an error is reported", lambda: json.loads(node.get("/progress"))["uploadError"] is not None)
    assert "the endpoint cannot be reached" in json.loads(node.get("/progress"))["uploadError"]
    proxy.rule = lambda _: "pass"
    wait_until("the error is withdrawn", lambda: json.loads(node.get("/progress"))["uploadError"] is None)
    assert json.loads(node.get("/progress"))["checkpoint"]["step"] == 10
    assert stop(agent)[0] == 0


def test_through_a_network_with_every_fault_what_is_committed_and_restored_is_exact(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    chance = random.Random(4)
    faults = {
        "GET": ("slow_down", "stall", "reset", "cut", "flip"),
        "PUT": ("slow_down", "stall", "lose", "lose_before"),
    }

    def rule(request: Request) -> str:
        # Of an index nobody knows a digest: a bit of it that is flipped is not what this is about.
        if chance.random() >= 0.05 * len(faults.get(request.method, ())):
            return "pass"
        verdict = chance.choice(faults[request.method])
        return "pass" if verdict == "flip" and request.key.endswith("checkpoints.json") else verdict

    node = make_node(endpoint_url=proxy.url)
    assert node.restore()[0] == 0
    agent = node.sync()
    proxy.rule = rule
    for step in (10, 20, 30):
        write_checkpoint(node.output, step, values=os.urandom(100_000))
        wait_until(f"checkpoint {step} is committed", lambda step=step: committed_steps(store)[-1:] == [step])  # type: ignore[misc]
    weights = (node.folders.checkpoint(30) / "unet/model.safetensors").read_bytes()
    proxy.rule = lambda _: "pass"
    assert stop(agent)[0] == 0
    proxy.rule = rule
    for attempt in range(2, 5):
        second = make_node(attempt=attempt, work=f"attempt-{attempt}", endpoint_url=proxy.url)
        # What fails is tried again, as the operator does; what succeeds is exact.
        while second.restore()[0] != 0:
            assert not (second.output / "checkpoint-30").exists()
        assert (second.folders.checkpoint(30) / "unet/model.safetensors").read_bytes() == weights
    assert committed_steps(store) == [10, 20, 30]


def test_expired_credentials_are_told_before_anything_is_to_be_uploaded_and_uploads_go_on_when_they_are_mended(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    node = make_node(endpoint_url=proxy.url)
    assert node.restore()[0] == 0
    agent = node.sync()
    proxy.rule = lambda _: "expired"
    wait_until(
        "expiry is reported",
        lambda: "renew them (ExpiredToken" in (json.loads(node.get("/progress"))["uploadError"] or ""),
    )
    write_checkpoint(node.output, 10)
    proxy.rule = lambda _: "pass"
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    wait_until("the error is withdrawn", lambda: json.loads(node.get("/progress"))["uploadError"] is None)
    assert stop(agent)[0] == 0


def test_credentials_in_a_file_that_is_replaced_are_read_again(
    make_node: MakeNode, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    good = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    file.write_text(good)
    node = make_node()
    assert node.restore()[0] == 0
    file.write_text(good.replace(KEY, "revoked"))
    agent = node.sync()
    write_checkpoint(node.output, 10)
    wait_until(
        "the key is named",
        lambda: "check AWS_ACCESS_KEY_ID" in (json.loads(node.get("/progress"))["uploadError"] or ""),
    )
    file.write_text(good)
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    assert stop(agent)[0] == 0


def test_credentials_that_are_replaced_reach_the_encode_cache_as_well(
    make_node: MakeNode, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    good = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    file.write_text(good)
    connected = [Store.connect(f"{store.uri}/{name}", store.endpoint) for name in ("run", "cache")]
    file.write_text(good.replace(SECRET, "revoked"))
    sync._renew(connected)
    for each in connected:
        with pytest.raises(CredentialsRefused):
            each.put("a", b"x")
    file.write_text(good)
    sync._renew(connected)
    for each in connected:
        each.put("a", b"x")


def test_a_refusal_of_a_later_attempt_does_not_end_the_run_for_good(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    assert make_node().restore()[0] == 0
    proxy.rule = lambda _: "unknown_key"
    code, message = make_node(attempt=2, work="second", endpoint_url=proxy.url).restore()
    assert (code, "check AWS_ACCESS_KEY_ID" in message) == (ExitCode.REFUSED, True)
    assert make_node(attempt=1, work="first", endpoint_url=proxy.url).restore()[0] == ExitCode.INVALID
    proxy.rule = lambda _: "pass"
    assert make_node(attempt=2, work="second", endpoint_url=proxy.url).restore()[0] == 0


def test_draining_has_its_limit_and_names_what_is_not_committed(make_node: MakeNode) -> None:
    node = make_node(nodes=2)
    assert node.restore()[0] == 0
    agent = node.sync("--drain-seconds=0.5")
    write_checkpoint(node.output, 10)
    code, errors = stop(agent)
    assert code == 1
    assert "not done within 0.5 s" in errors
    assert "checkpoints 10" in errors


def test_a_second_sigterm_ends_at_once(make_node: MakeNode) -> None:
    node = make_node(nodes=2)
    assert node.restore()[0] == 0
    agent = node.sync()
    write_checkpoint(node.output, 10)
    agent.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    code, errors = stop(agent)
    assert (code, "second SIGTERM" in errors) == (1, True)


def test_an_agent_that_is_started_again_in_its_attempt_goes_on(make_node: MakeNode, store: Store) -> None:
    node = make_node()
    assert node.restore()[0] == 0
    agent = node.sync()
    write_checkpoint(node.output, 10)
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    agent.kill()
    end(agent)
    write_checkpoint(node.output, 20)
    assert stop(node.sync())[0] == 0
    assert committed_steps(store) == [10, 20]
    assert node.restore()[0] == 0


def test_the_agent_beside_a_trainer_gives_way_to_it(make_node: MakeNode) -> None:
    node = make_node()
    node.restore()
    process = node.sync()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(mine + priority.NICENESS, 19)
    assert stop(process)[0] == ExitCode.COMPLETE


def test_sync_without_restore_says_what_to_do(make_node: MakeNode) -> None:
    chosen = options.parse(make_node().argv("sync")[3:])
    assert isinstance(chosen, options.SyncOptions)
    with pytest.raises(NothingThere, match="run `restore` first"):
        sync.sync(chosen)


@pytest.mark.parametrize(
    ("key", "secret", "remedy"),
    [("nobody", "x", "check AWS_ACCESS_KEY_ID"), ("agent-tests", "wrong", "check AWS_SECRET_ACCESS_KEY")],
    ids=["unknown key", "wrong secret"],
)
def test_wrong_credentials_are_named(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, remedy: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    code, errors = make_node().restore()
    assert (code, remedy in errors) == (ExitCode.INVALID, True)


def test_a_missing_bucket_is_named(make_node: MakeNode) -> None:
    node = make_node()
    node.uri = "s3://no-such-bucket/run"
    code, errors = node.restore()
    assert code == ExitCode.INVALID
    assert "s3://no-such-bucket/run" in errors
    assert "the bucket does not exist; create it" in errors


def test_an_unreachable_endpoint_is_reported_before_anything_is_waited_for(make_node: MakeNode) -> None:
    code, errors = end(make_node(endpoint_url="http://127.0.0.1:9").start("restore"))
    assert code == ExitCode.FAILED
    assert "127.0.0.1:9: the endpoint cannot be reached" in errors
    assert "Traceback" not in errors


def test_a_store_that_refuses_deletions_keeps_a_run_from_nothing_and_is_told(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    node = make_node(endpoint_url=proxy.url)
    assert node.restore() == (0, "")
    proxy.rule = lambda request: "unknown_key" if request.method == "POST" and request.query == "delete" else "pass"
    process = node.sync("--keep-last=1")
    for step in (10, 20, 30):
        write_checkpoint(node.output, step)
        wait_until(f"checkpoint {step} is committed", lambda step=step: step in committed_steps(store))  # type: ignore[misc]
    wait_until("the agent says so", lambda: "InvalidAccessKeyId" in node.get("/progress"))
    code, said = stop(process)
    assert (code, "everything is committed; what it replaces stays" in said) == (0, True)
    assert committed_steps(store) == [30]
    assert list(store.list("checkpoint-10/"))
