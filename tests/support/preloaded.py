"""Runs Python programs in processes that fork from one that has imported what they need: a tenth of a second instead of two.

What runs is what `python -m <module>` runs, in a process of its own, with its own arguments, environment, folder and files;
only the imports are shared. `python -m tests.support.preloaded <socket> <module>...` is the process that they fork from.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.processes import check_allowed
from tests.support.repository import REPOSITORY

OPERATOR = ("adapter_operator.__main__", "adapter_operator.operator")
COMMAND = (
    "atj.main",
    "atj.cluster.jobs",
    "atj.cluster.logs",
    "atj.cluster.wait",
    "kubernetes.client",
    "kubernetes.config",
)
_OF_KUBECONFIG = ("kubernetes.config.kube_config", "kubernetes.aio.config.kube_config")
"""These read the environment when they are imported."""
LONGEST = 1 << 20
"""Bytes of a request."""


class Program:
    """A process, as subprocess.Popen has it."""

    def __init__(self, module: str, control: socket.socket) -> None:
        self._module, self._control = module, control
        self.pid = int(control.recv(64))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._module, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            self._control.settimeout(seconds)
            try:
                told = self._control.recv(64)
            except (BlockingIOError, TimeoutError):
                return None
            self._control.close()
            self.returncode = int(told) if told else -signal.SIGKILL
        return self.returncode


def start(
    module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str], cwd: Path = REPOSITORY, stdout: int = 1, stderr: int = 2
) -> Program:  # fmt: skip
    """A program that runs; `stdout` and `stderr` are file descriptors."""
    check_allowed()  # forks are announced to nobody
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        request = {"module": module, "arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
        socket.send_fds(_origin(), [json.dumps(request).encode()], [theirs.fileno(), stdout, stderr])
    return Program(module, ours)


@functools.cache
def _origin() -> socket.socket:
    """Leads to the process that all fork from, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        words = [sys.executable, "-m", __name__, str(theirs.fileno()), *OPERATOR, *COMMAND]
        path = os.pathsep.join([str(REPOSITORY), *(each for each in sys.path if each)])
        # Not subprocess.Popen: that object warns of a process that outlives it, as this should.
        os.posix_spawn(sys.executable, words, {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"})
    atexit.register(ours.close)
    return ours


def main() -> None:
    """Forks a keeper for each request, which forks the program, and tells its pid and then its exit code."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are waited for by nobody
    while True:
        raw, files, _, _ = socket.recv_fds(channel, LONGEST, 3)
        if not raw:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            _keep(json.loads(raw), *files)
            return
        for file in files:
            os.close(file)


def _keep(request: dict[str, Any], control: int, stdout: int, stderr: int) -> None:
    """Returns only in the program's own process."""
    pid = os.fork()
    if pid == 0:
        os.close(control)
        _become(request, stdout, stderr)
        return
    with socket.socket(fileno=control) as told:
        told.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        told.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, Any], stdout: int, stderr: int) -> None:
    """Runs the program, and lets the interpreter end as it would without all this."""
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(request["environment"])
    for name in _OF_KUBECONFIG:
        vars(sys.modules[name])["KUBE_CONFIG_DEFAULT_LOCATION"] = os.environ.get("KUBECONFIG", "~/.kube/config")
    time.tzset()
    os.chdir(request["cwd"])
    sys.argv[1:] = request["arguments"]
    module = request["module"]
    # Imported, but not run: it is to run as the main program.
    sys.modules.pop(module if f"{module}.__main__" not in sys.modules else f"{module}.__main__", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
