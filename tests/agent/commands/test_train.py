"""`train` in a pod: waits for the commit of what was saved, passes signals on, and leaves the pod's last word."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from adapter_agent.syncing.report import Report
from adapter_agent.syncing.serve import serving
from adapter_api.checkpoint import IndexEntry
from adapter_api.launch import resolved
from adapter_api.progress import Ending, Outcome
from tests.support.waiting import wait_until

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ENDS = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2]); sys.exit(int(sys.argv[3]))"
SLEEPS = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    (tmp_path / "agent").mkdir()
    return tmp_path


def start(
    work: Path,
    *trainer: str,
    node: int = 0,
    rendezvous: str = "127.0.0.1:1",
    stdout: int = subprocess.DEVNULL,
    more: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "adapter_agent", "train", f"--node={node}", f"--work={work}"]
    argv += [
        f"--rendezvous={rendezvous}",
        f"--termination-message={work / 'last-word'}",
        "--",
        sys.executable,
        "-c",
        *trainer,
    ]
    environment = {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(argv, env=environment, stdout=stdout, stderr=subprocess.DEVNULL, text=True)


def outcome(reason: str, code: int, step: int = 7) -> str:
    return Outcome.model_validate({"exitCode": code, "reason": reason, "message": "why", "step": step, "at": NOW}).model_dump_json()  # fmt: skip


def last_word(work: Path) -> Ending:
    return Ending.model_validate_json((work / "last-word").read_bytes())


@pytest.mark.process
def test_a_failure_is_told_by_its_own_code_and_reason_not_torchruns(work: Path) -> None:
    process = start(work, ENDS, str(work / "output" / "outcome.json"), outcome("InvalidData", 2), "1")
    assert process.wait(30) == 2
    word = last_word(work)
    assert (word.exit_code, word.reason, word.message, word.step) == (2, "InvalidData", "why", 7)


@pytest.mark.process
def test_a_trainer_that_leaves_no_outcome_has_failed(work: Path) -> None:
    assert start(work, "import os; os.kill(os.getpid(), 9)").wait(30) == 137
    assert last_word(work).reason == "Killed"


@pytest.mark.process
def test_a_complete_training_ends_only_when_its_checkpoint_is_committed(work: Path) -> None:
    report = Report(work / "output", "s3://bucket/run")
    entry = IndexEntry.model_validate(
        {"step": 7, "committedAt": NOW, "bytes": 5, "manifestSha256": "0" * 64, "attempt": 1}
    )
    with serving("127.0.0.1", 0, report) as url:
        (work / "agent" / "address.json").write_text(json.dumps({"url": url}))
        process = start(work, ENDS, str(work / "output" / "outcome.json"), outcome("Complete", 0), "0")
        wait_until("the trainer has left its outcome", (work / "output" / "outcome.json").exists)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)  # the kubelet's, while the upload is under way
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        report.committed(entry)
        assert process.wait(30) == 0
    word = last_word(work)
    assert word.checkpoint is not None
    assert (word.reason, word.checkpoint.step) == ("Complete", 7)


@pytest.mark.process
def test_a_proxy_in_the_environment_does_not_stand_between_a_node_and_its_agent(work: Path) -> None:
    report = Report(work / "output", "s3://bucket/run")
    report.committed(
        IndexEntry.model_validate({"step": 7, "committedAt": NOW, "bytes": 5, "manifestSha256": "0" * 64, "attempt": 1})
    )
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    with serving("127.0.0.1", 0, report) as url:
        (work / "agent" / "address.json").write_text(json.dumps({"url": url}))
        process = start(work, ENDS, str(work / "output" / "outcome.json"), outcome("Complete", 0), "0", more=proxies)
        assert process.wait(30) == 0
    assert last_word(work).reason == "Complete"


@pytest.mark.process
def test_a_signal_reaches_the_trainer(work: Path) -> None:
    with start(work, SLEEPS, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9


@pytest.mark.process
def test_other_nodes_wait_until_node_0_listens(work: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        process = start(work, "pass", node=1, rendezvous=f"127.0.0.1:{port}")
        threading.Event().wait(1.5)
        assert process.poll() is None
        assert not (work / "last-word").exists()
        listener.listen()
        process.wait(30)
    assert (work / "last-word").exists()


def test_only_node_0_hosts_the_rendezvous() -> None:
    argv = ("torchrun", "--rdzv-conf=is_host=unresolved,join_timeout=3600")
    assert resolved(argv, 0)[1] == "--rdzv-conf=is_host=true,join_timeout=3600"
    assert resolved(argv, 3)[1] == "--rdzv-conf=is_host=false,join_timeout=3600"
