"""What runs beside training leaves the processor to it, also where sessions share it as equals."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adapter_agent.priority import NICENESS, give_way

pytestmark = pytest.mark.process

LEADER = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"


@pytest.fixture(params=[True, False], ids=["leads a session", "in a session of another"])
def process(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process's id; the session is one of the test's own, so that pytest's is nowhere slowed down."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LEADER], start_new_session=True, stdin=pipe, stdout=pipe) as leader:
        assert leader.stdout
        child = int(leader.stdout.readline())
        yield leader.pid if request.param else child
        psutil.Process(child).kill()


def autogroup(process: int) -> str:
    file = Path(f"/proc/{process}/autogroup")
    if not file.exists():
        pytest.skip("this kernel does not group tasks by session")
    return file.read_text().split()[-1]


def test_a_process_comes_after_those_that_train(process: int) -> None:
    before = psutil.Process(process).nice()
    give_way(process)
    assert psutil.Process(process).nice() == min(before + NICENESS, 19)


@pytest.mark.parametrize("process", [True], indirect=True)
def test_what_is_nice_already_still_comes_after_those_that_are_as_nice(process: int) -> None:
    psutil.Process(process).nice(19 - NICENESS + 2)
    give_way(process)
    assert psutil.Process(process).nice() == 19


@pytest.mark.parametrize("process", [True], indirect=True)
def test_a_session_that_it_leads_is_nice_as_a_whole(process: int) -> None:
    give_way(process)
    assert autogroup(process) == str(NICENESS)


@pytest.mark.parametrize("process", [False], indirect=True)
def test_a_session_of_another_is_left_as_it_is(process: int) -> None:
    before = autogroup(process)
    give_way(process)
    assert autogroup(process) == before
