"""Processes that never outlive this command: started so that they end with it, found again even when orphaned. Linux."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

Running = subprocess.Popen[bytes]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here and not after a fork, where only simple calls are safe.
_LIBC = ctypes.CDLL(None, use_errno=True)


def start(
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    *,
    folder: Path | None = None,
    keep_open: Sequence[int] = (),
    orphaned: signal.Signals = signal.SIGTERM,
) -> Running:
    """Starts a process in a session of its own, so that a terminal's Ctrl-C does not reach it.

    It is sent a signal if the calling thread ends first: call from the main thread.

    Args:
        argv: The program and its arguments.
        env: The whole environment.
        log: File that its output is appended to.
        folder: Working directory.
        keep_open: File descriptors that it inherits.
        orphaned: The signal; SIGKILL for what would go on for long when it is asked to end.
    """
    parent = os.getpid()

    def end_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, orphaned, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the request was made
            os._exit(1)

    with log.open("ab") as stream:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, and we start no threads that hold locks
            pass_fds=tuple(keep_open),
        )


def terminate(processes: Iterable[Running]) -> None:
    """Asks processes to end."""
    for process in processes:
        if process.poll() is None:
            process.terminate()


def marked(mark: Mapping[str, str]) -> set[psutil.Process]:
    """Every live process that was started with these environment variables, wherever it is by now, and its descendants.

    The environment is inherited, so it also finds processes whose parents are gone, of this command or an earlier one.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if process.pid != os.getpid() and all(environment.get(name) == value for name, value in mark.items()):
                found |= {process, *process.children(recursive=True)}
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def kill(
    mark: Mapping[str, str], *, spare: Sequence[Running] = (), sparing: int | None = None, seconds: float = 10.0
) -> None:
    """Kills every process that carries the mark, apart from the trees of `spare`, and the process `sparing` alone.

    Repeats until none is found, since a process may have started another between being found and being killed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        spared = {process for root in spare for process in _tree(root)}
        found = {process for process in marked(mark) - spared if process.pid != sparing}
        if not found:
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Not psutil's wait: it would take our own children's exit codes away from Popen.
        time.sleep(0.05)


def _tree(root: Running) -> set[psutil.Process]:
    try:
        process = psutil.Process(root.pid)
        return {process, *process.children(recursive=True)} if root.poll() is None else set()
    except psutil.NoSuchProcess:
        return set()


def ending(code: int) -> str:
    """How a process ended, from its return code: "exit code 1" or "signal SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
