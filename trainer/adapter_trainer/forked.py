"""`python -m adapter_trainer.forked MODULE ARGUMENT...` does what `python -m MODULE ARGUMENT...` does, in a forked process.

The fork server whose socket the environment names (`adapter_trainer.fork_server`) forks a process that runs the module with
the same arguments, environment, folder and standard streams. This one passes signals on to it and ends as it ends. Without
a server, or where none answers, the module runs right here.
"""

import json
import os
import runpy
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

FORK_SERVER_VARIABLE = "ADAPTER_TRAINING_FORK_SERVER"
"""Environment variable that holds the path of the server's Unix socket."""
LENGTH = struct.Struct("!I")
"""What a request begins with: the bytes of JSON that follow. The three standard streams come with it."""
MAX_REQUEST_BYTES = 1 << 24
STREAMS = (0, 1, 2)
STARTED = b"started "
"""Comes before the process ID, and a line's end."""
ENDED = b"ended "
"""Comes before the exit code, negative for a signal, and a line's end."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Request:
    """What is to run."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str


def main(argv: Sequence[str]) -> int:
    """Runs the module `argv[0]` with the other arguments; returns its exit code, or ends by the signal that it ended by."""
    module, *arguments = argv
    code = _forked(module, arguments)
    if code is None:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    if code < 0:
        _end_by(-code)
    return code


def _forked(module: str, arguments: Sequence[str]) -> int | None:
    """The exit code of the forked process; None when no server has made one."""
    address = os.environ.get(FORK_SERVER_VARIABLE)
    if address is None:
        return None
    request = Request(module, arguments, dict(os.environ), str(Path.cwd()))
    body = json.dumps(asdict(request)).encode()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [LENGTH.pack(len(body))], STREAMS)
            server.sendall(body)
            replies = server.makefile("rb")
            if not replies.readline().startswith(STARTED):
                return None
        except OSError:
            return None

        def pass_on(number: int, _frame: FrameType | None) -> None:
            with suppress(OSError):  # it has ended just now
                server.send(bytes([number]))

        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        try:
            word, _, code = replies.readline().partition(b" ")
        except OSError:
            word = b""
    # A server that is gone has taken its processes along.
    return int(code) if word + b" " == ENDED else -signal.SIGKILL


def _end_by(number: int) -> None:
    """Ends this process by a signal, as the one that it stands for has ended."""
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
