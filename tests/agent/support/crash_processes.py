"""Agents and trainers as real processes that can be killed at any of their requests and any of their writes to disk.

They are forked from a server that has imported everything once: a run needs a dozen, and importing takes seconds.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from adapter_agent.__main__ import main
from adapter_agent.storage import multipart
from adapter_api.checkpoint import folder_name
from adapter_api.layout import STATE_FILE
from adapter_trainer.checkpoint import checkpoint_folder, tensor_files, writer
from adapter_trainer.distributed.processes import Processes
from tests.agent.support.node import safetensors

PARTS = 5 * 2**20
"""So small that a test's files go up in several."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def start(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Runs `work` in a process of its own, with the environment as it is now."""
    process = _CONTEXT.Process(target=_run, args=(dict(os.environ), work, arguments), daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    work(*arguments)


def agent(argv: list[str], log: Path, folder: Path, counter: Path, fatal: int) -> None:
    """`python -m adapter_agent` with these arguments."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    multipart.SINGLE_PUT_BYTES = multipart.MIN_PART_BYTES = PARTS
    sys.argv = ["adapter_agent", *argv]
    kill_at(folder, counter, fatal)
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class Pass:
    """One start of the trainers of all nodes."""

    id: str
    latest: int
    """The step that all of them go on from."""
    weights: dict[int, tuple[bytes, ...]]
    """Step -> the shard of each node."""


def trainer(output: Path, node: int, begun: Pass, allowed: Path, counter: Path, fatal: int) -> None:
    """Saves a checkpoint of each step as soon as a file of `allowed` says so, as the real trainer saves with FSDP."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes = Processes(rank=node)
    output.mkdir(parents=True, exist_ok=True)
    kill_at(output, counter, fatal)
    checkpoint_folder.clear_remains(output, processes)
    for step in [step for step in sorted(begun.weights) if step > begun.latest]:
        while not (allowed / str(step)).exists():
            time.sleep(0.02)
        save(output, step, node, files_of(step, node, begun.weights[step]), begun.id)
    signal.pause()


def save(output: Path, step: int, node: int, files: dict[str, bytes], pass_id: str) -> None:
    """Writes a node's checkpoint as the process beside a real trainer does, here in this one."""
    memory, spans = os.memfd_create("checkpoint"), {}
    for name, body in files.items():
        spans[name] = (os.lseek(memory, 0, os.SEEK_END), len(body))
        os.write(memory, body)
    aside, final = output / f".{folder_name(step)}.tmp", output / folder_name(step)
    writer.carry_out(writer.Command(str(aside), str(final), spans, step, node, [node], [], pass_id), memory)
    os.close(memory)


def shard_name(node: int, nodes: int) -> str:
    """The file of one node's rows of the weights."""
    return tensor_files.name_of("model/unet", node, nodes)


def files_of(step: int, node: int, shards: tuple[bytes, ...]) -> dict[str, bytes]:
    """What one node has to save."""
    files = {
        f"random-rank-{node:05d}.safetensors": safetensors(f"rng {node} {step}".encode()),
        shard_name(node, len(shards)): safetensors(shards[node]),
    }
    if node == 0:
        files |= {
            STATE_FILE: b"{}",
            "metrics.json": f'{{"loss": {1 / step}}}'.encode(),
            "versions.json": b'{"torch": "2"}',
        }
    return files


def kill_at(folder: Path, counter: Path, fatal: int) -> None:
    """Counts everything that this process is about to change below `folder`; the `fatal`th change is its end (0: none).

    Python announces each (https://docs.python.org/3/library/audit_events.html), so that none has to be listed by hand.
    """
    inside = f"{folder}{os.sep}"
    tally = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    lock = threading.Lock()
    seen = 0

    def changes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return _is_below(path, inside) and isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        if event in {"os.remove", "os.rmdir"} and arguments[1] != -1:
            return True  # relative to an open folder: the inside of a tree that is being removed
        return event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"} and _is_below(
            arguments[0], inside
        )

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if changes(event, arguments):
            with lock:
                seen += 1
                os.write(tally, b".")
                if seen == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _is_below(path: Any, inside: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(inside)
