"""Sees to it that a test which starts processes says so: `make test-pure` leaves it out."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTING = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})
"""Events by which Python announces a process (https://docs.python.org/3/library/audit_events.html)."""
MARKERS = ("process", "cluster", "e2e")

_forbidden_in: list[str] = []


def check_allowed() -> None:
    """Raise AssertionError within a test that has no marker for processes."""
    if _forbidden_in:
        raise AssertionError(f"{_forbidden_in[-1]} starts a process: mark it with pytest.mark.process")


def _watch(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in STARTING:
        check_allowed()


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_process_unless_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process and has no marker that says so."""
    if any(request.node.get_closest_marker(name) for name in MARKERS):
        yield
        return
    _forbidden_in.append(request.node.nodeid)
    yield
    _forbidden_in.clear()
