"""A node that is told to stop: what fits in the time is committed, and what does not is said, never half committed."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_agent.storage.store import Store
from adapter_agent.syncing import stopping
from adapter_agent.syncing.stopping import next_upload
from adapter_api.progress import Ending, ExitCode, Outcome
from tests.agent.support.faulty_proxy import Proxy
from tests.agent.support.node import MakeNode, Node, committed_steps, stop, write_checkpoint
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

TRAINER = """
import os, pathlib, shutil, signal, sys, threading, time
agent, told = os.getppid(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
pathlib.Path(sys.argv[1], "ready").touch()
told.wait()
if sys.argv[2] == "hangs":
    while os.getppid() == agent:  # in a pod it ends with its container
        time.sleep(0.1)
    sys.exit(1)
shutil.move(pathlib.Path(sys.argv[1], "saved"), pathlib.Path(sys.argv[1], "checkpoint-20"))
pathlib.Path(sys.argv[1], "outcome.json").write_text(sys.argv[3])
sys.exit(75)
"""
"""Saves step 20 when it is told to stop, as a trainer does."""


@given(
    pending=st.dictionaries(st.integers(0, 99), st.integers(0, 10_000), max_size=5),
    speed=st.one_of(st.none(), st.floats(0.1, 1000)),
    seconds=st.floats(-5, 100),
)
def test_the_newest_that_fits_goes_first_and_something_always_goes(
    pending: dict[int, int], speed: float | None, seconds: float
) -> None:
    chosen = next_upload(pending, speed, seconds)
    if not pending:
        assert chosen is None
        return
    fitting = [step for step, size in pending.items() if speed is not None and size <= speed * seconds]
    assert chosen == (max(fitting) if fitting else min(pending))


def test_an_announcement_that_is_gone_or_garbled_is_none(tmp_path: Path) -> None:
    assert stopping.seconds_left(tmp_path) is None
    (tmp_path / stopping.STOP_FILE).write_text("[]")
    assert stopping.seconds_left(tmp_path) is None


def start_train(node: Node, behaviour: str, grace_seconds: float) -> subprocess.Popen[str]:
    outcome = Outcome(exit_code=75, reason="Stopped", step=20, at=datetime.now(UTC)).model_dump_json()
    argv = [
        sys.executable, "-m", "adapter_agent", "train", "--node=0", f"--work={node.folders.work}", "--rendezvous=h:1",
        f"--grace-seconds={grace_seconds}", f"--termination-message={node.folders.work / 'last-word'}", "--",
        sys.executable, "-c", TRAINER, str(node.output), behaviour, outcome,
    ]  # fmt: skip
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
    node.processes.append(process)
    wait_until("the trainer runs", (node.output / "ready").exists)
    return process


def last_word(node: Node) -> Ending:
    return Ending.model_validate_json((node.folders.work / "last-word").read_bytes())


def prepared(node: Node) -> None:
    """A node whose trainer will have step 20 to save."""
    assert node.restore()[0] == 0
    write_checkpoint(node.output, 20).rename(node.output / "saved")


def test_what_is_saved_but_not_committed_in_time_is_said_and_the_commit_before_it_stands(
    make_node: MakeNode, store: Store, proxy: Proxy
) -> None:
    node = make_node(endpoint_url=proxy.url)
    prepared(node)
    agent = node.sync()
    write_checkpoint(node.output, 10)
    wait_until("a checkpoint is reported", lambda: json.loads(node.get("/progress"))["checkpoint"] is not None)
    told = json.loads(node.get("/progress"))
    assert told["commitSeconds"] > 0
    assert told["uploadBytesPerSecond"] > 0
    process = start_train(node, "saves", grace_seconds=4)
    proxy.rule = lambda request: (
        "hang" if request.method == "PUT" and request.key.endswith("checkpoint-20/unet/model.safetensors") else "pass"
    )
    process.send_signal(signal.SIGTERM)
    wait_until("an upload hangs", proxy.hanging.is_set)
    assert json.loads(node.get("/progress"))["pendingBytes"] > 0
    assert process.wait(30) == ExitCode.STOPPED
    word = last_word(node)
    assert (word.reason, word.step, word.checkpoint and word.checkpoint.step) == ("NotCommitted", 20, 10)
    assert "step 20 was saved, but not committed within the 4 s that a stop has" in word.message
    assert "checkpoint 10 is committed. Set spec.terminationGracePeriodSeconds to" in word.message
    agent.kill()
    assert committed_steps(store) == [10]
    assert make_node(attempt=2, work="next").restore()[0] == 0
    assert not [facts.key for facts in store.list("checkpoint-20/")]


def test_a_trainer_that_is_not_done_in_time_ends_with_a_word_of_its_own(make_node: MakeNode) -> None:
    node = make_node()
    prepared(node)
    process = start_train(node, "hangs", grace_seconds=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == ExitCode.STOPPED
    word = last_word(node)
    assert word.reason == "NotSaved"
    assert word.message.startswith("not saved within the 1 s that a stop has; nothing is committed yet")


def test_a_stop_with_a_backlog_commits_the_newest_checkpoint_first(make_node: MakeNode, store: Store) -> None:
    node = make_node()
    assert node.restore()[0] == 0
    agent = node.sync()
    write_checkpoint(node.output, 10)
    wait_until("checkpoint 10 is committed", lambda: committed_steps(store) == [10])
    agent.send_signal(signal.SIGSTOP)  # uploads are slower than saves
    for step in (20, 30, 40):
        write_checkpoint(node.output, step)
    stopping.announce(node.folders, 60)
    agent.send_signal(signal.SIGCONT)
    assert stop(agent)[0] == 0
    assert committed_steps(store) == [10, 40]
