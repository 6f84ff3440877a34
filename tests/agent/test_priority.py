"""What runs beside training leaves the processor to it, also where sessions share it as equals."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adapter_agent.priority import NICENESS, give_way

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture(params=[True, False], ids=["leads a session", "in a session of another"])
def process(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(SLEEP, start_new_session=request.param) as started:
        yield started
        started.kill()


def autogroup(pid: int) -> str:
    file = Path(f"/proc/{pid}/autogroup")
    if not file.exists():
        pytest.skip("this kernel does not group tasks by session")
    return file.read_text().split()[-1]


def test_a_process_comes_after_those_that_train(process: "subprocess.Popen[bytes]") -> None:
    before = psutil.Process(process.pid).nice()
    give_way(process.pid)
    assert psutil.Process(process.pid).nice() == min(before + NICENESS, 19)


@pytest.mark.parametrize("process", [True], indirect=True)
def test_what_is_nice_already_still_comes_after_those_that_are_as_nice(process: "subprocess.Popen[bytes]") -> None:
    psutil.Process(process.pid).nice(19 - NICENESS + 2)
    give_way(process.pid)
    assert psutil.Process(process.pid).nice() == 19


@pytest.mark.parametrize("process", [True], indirect=True)
def test_a_session_that_it_leads_is_nice_as_a_whole(process: "subprocess.Popen[bytes]") -> None:
    give_way(process.pid)
    assert autogroup(process.pid) == str(NICENESS)


@pytest.mark.parametrize("process", [False], indirect=True)
def test_a_session_of_another_is_left_as_it_is(process: "subprocess.Popen[bytes]") -> None:
    before = autogroup(process.pid)
    give_way(process.pid)
    assert autogroup(process.pid) == before
