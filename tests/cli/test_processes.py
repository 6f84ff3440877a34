"""Processes that we start end with us, whatever ended us."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from atj import processes
from tests.cli.support.command import environment
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

SLEEP = "import time; time.sleep(600)"
FAMILY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
"""A process with a child in another session, as torchrun's are."""


@pytest.fixture
def mark() -> dict[str, str]:
    return {"ATJ_TEST": uuid.uuid4().hex}


def test_orphans_of_a_killed_parent_are_found_and_killed(tmp_path: Path, mark: dict[str, str]) -> None:
    log = tmp_path / "log"
    parent = processes.start([sys.executable, "-c", FAMILY], {**os.environ, **mark}, log)
    wait_until("the process has written its child's id", lambda: log.read_text().strip())
    orphan = psutil.Process(int(log.read_text()))
    parent.kill()
    parent.wait()
    assert orphan.is_running()
    processes.kill(mark)
    wait_until("the orphan has ended", lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


def test_spared_process_survives(tmp_path: Path, mark: dict[str, str]) -> None:
    spared, other = (
        processes.start([sys.executable, "-c", SLEEP], {**os.environ, **mark}, tmp_path / "log") for _ in range(2)
    )
    processes.kill(mark, spare=[spared])
    assert other.wait() == -signal.SIGKILL
    assert spared.poll() is None
    processes.kill(mark)
    spared.wait()


def test_process_with_another_mark_is_left_alone(tmp_path: Path, mark: dict[str, str]) -> None:
    other = processes.start(
        [sys.executable, "-c", SLEEP], {**os.environ, "ATJ_TEST": uuid.uuid4().hex}, tmp_path / "log"
    )
    processes.kill(mark)
    assert other.poll() is None
    other.kill()
    other.wait()


@pytest.mark.parametrize("orphaned", ["SIGTERM", "SIGKILL"])
def test_process_ends_with_the_command_that_started_it(tmp_path: Path, orphaned: str) -> None:
    stubborn = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}" if orphaned == "SIGKILL" else SLEEP
    )
    code = (
        "import os, signal, sys; from pathlib import Path; from atj import processes\n"
        f"command = [sys.executable, '-c', {stubborn!r}]\n"
        f"process = processes.start(command, os.environ, Path({str(tmp_path / 'log')!r}), orphaned=signal.{orphaned})\n"
        "print(process.pid, flush=True)\n" + SLEEP
    )
    command = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    started = psutil.Process(int(command.stdout.readline()))
    assert os.getsid(started.pid) == started.pid, "a terminal's Ctrl-C would reach it"
    command.kill()
    command.communicate()
    wait_until("the process has ended", lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("code", "text"), [(1, "exit code 1"), (-9, "signal SIGKILL"), (-63, "signal 63")], ids=["code", "named", "unnamed"]
)
def test_ending_reads_as_a_person_says_it(code: int, text: str) -> None:
    assert processes.ending(code) == text
