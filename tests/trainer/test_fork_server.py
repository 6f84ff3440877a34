"""A forked process does what `python -m` does: arguments, environment, folder, output, signals and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from adapter_trainer.forked import FORK_SERVER_VARIABLE
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

TOLD = """
import json, os, random, sys, numpy
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("PROBE"), "name": __name__,
    "server": os.environ.get("ONLY_THE_SERVERS"), "session": os.getsid(0) == os.getpid(), "input": sys.stdin.read(),
    "drawn": [random.random(), numpy.random.random()], "parent": os.getppid(),
}))
print("to standard error", file=sys.stderr)
"""
ENDS = """
import os, sys
how = sys.argv[1]
if how == "raises":
    raise RuntimeError("as a module does")
if how.startswith("signal "):
    os.kill(os.getpid(), int(how.split()[1]))
sys.exit(int(how))
"""
WAITS = """
import os, signal, sys, time
def end(number, frame):
    sys.exit(40 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
print(os.getpid(), flush=True)
time.sleep(600)
"""
SERVER = """
import sys, numpy
from adapter_trainer import fork_server
fork_server.main(sys.argv[1], loads=[lambda: None])
"""
"""What is forked has numpy alone: the libraries of a trainer take long, and `atj run` tries those."""
MODULES = {"told": TOLD, "ends": ENDS, "waits": WAITS}


@dataclass
class Forks:
    """A server, and what is run in its forks."""

    folder: Path
    process: subprocess.Popen[str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**_environment(self.folder), FORK_SERVER_VARIABLE: str(self.folder / "socket")}

    def start(self, module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        stand = subprocess.Popen(
            [sys.executable, "-m", "adapter_trainer.forked", module, *arguments], cwd=self.folder, text=True,
            env={**self.environment, **variables}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(stand)
        return stand

    def waiting(self) -> tuple[subprocess.Popen[str], psutil.Process]:
        """A process that stands for one that waits, and that one."""
        stand = self.start("waits")
        assert stand.stdout is not None
        return stand, psutil.Process(int(stand.stdout.readline()))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _with_modules(tmp_path_factory.mktemp("forks"))


@pytest.fixture(scope="module")
def lasting(folder: Path) -> Iterator[Forks]:
    """A server for tests that leave it as it is."""
    yield from _forks(folder)


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    """A server of a test's own."""
    yield from _forks(_with_modules(tmp_path))


def _with_modules(folder: Path) -> Path:
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def _forks(folder: Path) -> Iterator[Forks]:
    socket_file = folder / "socket"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(socket_file)], cwd=folder, text=True,
        env={**_environment(folder), "ONLY_THE_SERVERS": "1"},
    ) as process:  # fmt: skip
        wait_until("the server listens", lambda: socket_file.exists() or process.poll() is not None)
        forks = Forks(folder, process)
        yield forks
        process.kill()
        for stand in forks.started:
            stand.communicate()


def _has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_module_finds_what_it_was_given(lasting: Forks) -> None:
    told = [lasting.start("told", "--flag", "a value", PROBE="kept") for _ in range(2)]
    ended = [each.communicate("what is typed", timeout=240) for each in told]
    assert [each.returncode for each in told] == [0, 0]
    assert [errors for _, errors in ended] == ["to standard error\n"] * 2
    first, second = (json.loads(output) for output, _ in ended)
    assert first["arguments"] == ["--flag", "a value"]
    assert (first["name"], first["variable"], first["server"]) == ("__main__", "kept", None)
    assert (first["folder"], first["input"], first["session"]) == (str(lasting.folder), "what is typed", True)
    assert first["parent"] == lasting.process.pid
    assert not set(first["drawn"]) & set(second["drawn"])


@pytest.mark.parametrize(
    ("how", "code"), [("0", 0), ("7", 7), ("signal 9", -9), ("signal 11", -11), ("signal 15", -15)]
)
def test_it_ends_as_the_module_ends(lasting: Forks, how: str, code: int) -> None:
    ends = lasting.start("ends", how)
    ends.communicate(timeout=240)
    assert ends.returncode == code


def test_exception_is_printed_and_ends_with_1(lasting: Forks) -> None:
    ends = lasting.start("ends", "raises")
    _, errors = ends.communicate(timeout=240)
    assert ends.returncode == 1
    assert "RuntimeError: as a module does" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(lasting: Forks, number: signal.Signals) -> None:
    stand, _ = lasting.waiting()
    stand.send_signal(number)
    assert stand.wait(240) == 40 + number


def test_killing_it_kills_the_module(lasting: Forks) -> None:
    stand, module = lasting.waiting()
    stand.kill()
    wait_until("the module has ended", lambda: _has_ended(module))


def test_connection_that_asks_for_nothing_disturbs_nobody(lasting: Forks) -> None:
    stand, _ = lasting.waiting()
    for words in (b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(lasting.folder / "socket"))
            stranger.sendall(words)
    stand.terminate()
    assert stand.wait(240) == 40 + signal.SIGTERM


def test_server_that_is_lost_takes_all_along(forks: Forks) -> None:
    stand, module = forks.waiting()
    forks.process.kill()
    assert stand.wait(240) == -signal.SIGKILL
    wait_until("the module has ended", lambda: _has_ended(module))


def test_server_that_is_told_to_end_outlives_what_it_forked(forks: Forks) -> None:
    stand, _ = forks.waiting()
    forks.process.terminate()
    stand.terminate()
    assert stand.wait(240) == 40 + signal.SIGTERM
    assert forks.process.wait(240) == 0


@pytest.mark.parametrize("variables", [{}, {FORK_SERVER_VARIABLE: "/nobody/listens"}], ids=["none", "lost"])
def test_without_a_server_the_module_runs_by_itself(folder: Path, variables: dict[str, str]) -> None:
    environment = {name: value for name, value in _environment(folder).items() if name != FORK_SERVER_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "adapter_trainer.forked", "told", "word"], cwd=folder, text=True, check=True, input="",
        env={**environment, **variables}, capture_output=True, timeout=240,
    )  # fmt: skip
    assert json.loads(done.stdout)["arguments"] == ["word"]
