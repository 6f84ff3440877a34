"""A process that imports a trainer's libraries once, and forks for every process of a run that needs them. Linux.

Importing torch, diffusers and transformers takes longer than all else before the first step. Where several processes of
one run share a machine, one does it for all: torchrun and the trainers of every node, and those that replace them after a
failure. `adapter_trainer.forked` is what asks for a fork, and stands for it.

A machine with an accelerator does without: a process that is forked cannot use a device that its parent has touched,
and which import touches one is a matter of versions.
"""

import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, cast

from adapter_trainer.beginning import import_libraries, uncollected
from adapter_trainer.forked import ENDED, LENGTH, MAX_REQUEST_BYTES, STARTED, STREAMS, Request

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15
_NAME_BYTES = 15
_REQUEST_SECONDS = 10.0
"""How long a request may take to arrive: it is sent in one piece, by a process of this machine."""


@dataclass
class _Asked:
    """A request that has come."""

    connection: socket.socket
    request: Request
    streams: list[int]

    def close_streams(self) -> None:
        for stream in self.streams:
            os.close(stream)


@dataclass
class _Server:
    """The requests that are being served."""

    listener: socket.socket
    waiting: list[_Asked] = field(default_factory=list)
    children: dict[int, socket.socket] = field(default_factory=dict)
    """The connection of each live child that was forked, by its process ID."""
    is_ending: bool = False

    def next_fork(self, modules: Collection[str] | None = None) -> Request | None:
        """Forks for every request until told to end: returns the request in each child, and None in the server at the end.

        With `modules`, it forks for these alone, as long as there are requests: others wait for the next call.
        """
        libc = ctypes.CDLL(None, use_errno=True)  # loaded before a fork, not after it
        server, patience = os.getpid(), None if modules is None else 0
        with selectors.DefaultSelector() as selector, _told_of_children(selector, self._on_end):
            for connection in (self.listener, *self.children.values()):
                selector.register(connection, selectors.EVENT_READ)
            while self.children or not self.is_ending:
                events = selector.select(0 if self.waiting else patience)
                for key, _ in events:
                    if key.fileobj is self.listener:
                        self._accept()
                    elif key.data is None:
                        self._relay(cast("socket.socket", key.fileobj), selector)
                    else:
                        key.data.recv(4096)  # a signal has arrived
                for asked in [each for each in self.waiting if modules is None or each.request.module in modules]:
                    self.waiting.remove(asked)
                    if self._is_child(asked, libc, server):
                        return asked.request
                    selector.register(asked.connection, selectors.EVENT_READ)
                self._reap(selector)
                if modules is not None and not events:
                    break
        return None

    def _accept(self) -> None:
        """Puts a request among those that wait."""
        connection, _ = self.listener.accept()
        try:
            self.waiting.append(_received(connection))
        except (OSError, ValueError, TypeError, EOFError):
            connection.close()  # most likely it has ended meanwhile

    def _is_child(self, asked: _Asked, libc: ctypes.CDLL, server: int) -> bool:
        """Forks: true in the child, which has the streams that came with the request, and false in the server."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            asked.close_streams()
            self.children[child] = asked.connection
            with contextlib.suppress(OSError):
                asked.connection.sendall(STARTED + b"%d\n" % child)
            return False
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it ended before the request was made
            os._exit(1)
        libc.prctl(_PR_SET_NAME, asked.request.module.rpartition(".")[2].encode()[:_NAME_BYTES], 0, 0, 0)
        os.setsid()
        for number, stream in zip(STREAMS, asked.streams, strict=True):
            os.dup2(stream, number)
        # The others' ends, or nobody would be told when the server is gone.
        asked.close_streams()
        for inherited in (self.listener, asked.connection, *self.children.values()):
            inherited.close()
        for other in self.waiting:
            other.close_streams()
            other.connection.close()
        return True

    def _relay(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        """Passes on the signals that a requester was sent; kills its child when the requester is gone."""
        try:
            numbers = connection.recv(64)
        except OSError:
            numbers = b""
        for child, its in self.children.items():
            if its is connection:  # not reaped yet, so that the number is still its own
                for number in numbers or (signal.SIGKILL,):
                    os.kill(child, number)
        if not numbers:
            selector.unregister(connection)

    def _reap(self, selector: selectors.BaseSelector) -> None:
        for child in list(self.children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            connection = self.children.pop(child)
            with contextlib.suppress(OSError):
                connection.sendall(ENDED + b"%d\n" % os.waitstatus_to_exitcode(status))
            if connection in selector.get_map():
                selector.unregister(connection)
            connection.close()

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        self.is_ending = True


@contextlib.contextmanager
def _told_of_children(
    selector: selectors.BaseSelector, on_end: Callable[[int, FrameType | None], Any]
) -> Iterator[None]:
    """Within the block the selector wakes up when a child ends, and when this process is told to end."""
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.setblocking(False)
    before = {
        signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_end),
    }
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector.register(awake, selectors.EVENT_READ, data=awake)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        awake.close()
        wake.close()


def _received(connection: socket.socket) -> _Asked:
    """A request, and its standard streams.

    Raises:
        EOFError: the requester has ended.
        ValueError, TypeError: what came is no request.
    """
    connection.settimeout(_REQUEST_SECONDS)
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, len(STREAMS))
    try:
        asked = _Asked(connection, _request(connection, head), streams)
    except BaseException:
        for stream in streams:
            os.close(stream)
        raise
    connection.settimeout(None)
    return asked


def _request(connection: socket.socket, head: bytes) -> Request:
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    if length > MAX_REQUEST_BYTES:
        raise ValueError(f"a request of {length} bytes")
    body = connection.makefile("rb").read(length)  # the requester sends no more before it is answered
    if len(body) < length:
        raise EOFError
    return Request(**json.loads(body))


def _become(request: Request) -> None:
    """Runs the module as `python -m` would."""
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv = [request.module, *request.arguments]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # unlike Python's own, its generator is not seeded anew after a fork
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


EARLY = ("torch.distributed.run",)
"""What does without a trainer's libraries, and better: at each step of a rendezvous torchrun looks through all modules that
there are for the one that it is in (`inspect.stack` in torch 2.15's dynamic_rendezvous.py), which takes a second among a trainer's.
"""


def _load_launcher() -> None:
    import torch.distributed.elastic.agent.server.local_elastic_agent
    import torch.distributed.elastic.rendezvous.c10d_rendezvous_backend
    import torch.distributed.launcher.api  # noqa: F401 - what torchrun runs


LOADS: tuple[Callable[[], object], ...] = (
    _load_launcher,
    *(
        functools.partial(importlib.import_module, name)
        for name in ("accelerate", "torch._dynamo", "transformers", "peft")
    ),
    import_libraries,
)
"""The imports, in parts of about a second: between them it forks for what is early."""


def main(address: str, loads: Sequence[Callable[[], object]] = LOADS) -> None:
    """Serves at the Unix socket `address` until SIGTERM; returns in forked processes when their module has."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(256)  # requests that come during imports wait
        server = _Server(listener)
        request = None
        for load in loads:
            with uncollected():
                load()
            if (request := server.next_fork(None if load is loads[-1] else EARLY)) is not None:
                break
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main(sys.argv[1])
