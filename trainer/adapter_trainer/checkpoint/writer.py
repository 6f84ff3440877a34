"""The process that writes checkpoint folders beside a trainer: `python -m adapter_trainer.checkpoint.writer MEMFD`.

It reads one command a line from standard input and answers with one line each. It imports no torch, so that it costs
little memory and starts at once, and it dies with its trainer.

    checkpoint-<step>/
        complete-rank-<rank>.json    every file of one writing node, with its size, and whose pass it is of: the folder's seal

Every rank's writer puts its files into the hidden folder `.checkpoint-<step>.tmp`; the leader's waits for all of those
that share the folder, seals it and gives it its name by one rename, after everything in it is on disk.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapter_trainer.files import fsync_path

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.01
NICENESS = 10
"""Below the trainer: it is in no hurry."""


@dataclass(frozen=True)
class Command:
    """One rank's part of a checkpoint."""

    aside: str
    final: str
    files: dict[str, tuple[int, int]]
    """Offset and size in the shared memory, by relative name."""
    step: int
    rank: int
    sharing: list[int]
    """Ranks that write into this folder; the lowest finishes it."""
    doomed: list[str]
    """Older checkpoint folders that go when this one stands."""
    pass_id: str = ""
    """Of the processes that save: what those of another have written is not of the same checkpoint."""

    def to_line(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def carry_out(command: Command, memory: int) -> None:
    """Writes this rank's files; as leader, waits for the other ranks' and finishes the folder.

    Raises:
        OSError: it cannot be written.
    """
    aside, final = Path(command.aside), Path(command.final)
    aside.mkdir(parents=True, exist_ok=True)
    for name, (offset, size) in command.files.items():
        path = aside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _send(memory, offset, size, path)
    _mark(aside, command.rank).touch()
    if command.rank == min(command.sharing):
        _finish(aside, final, command)


def _send(memory: int, offset: int, size: int, path: Path) -> None:
    """Copies bytes of the shared memory into a file, in the kernel."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        done = 0
        while done < size:
            done += os.sendfile(target, memory, offset + done, size - done)
        os.fsync(target)
    finally:
        os.close(target)


def _mark(aside: Path, rank: int) -> Path:
    return aside / f".written-by-{rank}"


def _finish(aside: Path, final: Path, command: Command) -> None:
    marks = [_mark(aside, rank) for rank in command.sharing]
    while not all(mark.exists() for mark in marks):
        time.sleep(_LOOK_SECONDS)
    for mark in marks:
        mark.unlink()
    files = {path.relative_to(aside).as_posix(): path for path in sorted(aside.rglob("*")) if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    seal = aside / f"complete-rank-{command.rank:05d}.json"
    text = json.dumps({"step": command.step, "pass": command.pass_id, "files": sizes}, indent=1)
    seal.write_text(text, encoding="utf-8")
    for path in (seal, *(folder for folder in aside.rglob("*") if folder.is_dir()), aside):
        fsync_path(path)
    if final.is_dir():
        remove([final])  # what an earlier pass or an incompatible attempt left under this name; never seen in part
    aside.replace(final)
    fsync_path(final.parent)
    remove(Path(folder) for folder in command.doomed)


def remove(folders: Iterable[Path]) -> None:
    """Deletes checkpoint folders, each renamed first: one that is half deleted must not look like a checkpoint."""
    for folder in folders:
        gone = folder.with_name(f".{folder.name}.deleted")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            folder.replace(gone)
        except FileNotFoundError:
            continue  # another process of this node has deleted it
        shutil.rmtree(gone, ignore_errors=True)


def main(memory: int) -> None:
    """Carries out commands until standard input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A terminal's Ctrl-C reaches this process too; it is the trainer that decides what is still to be written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    for line in sys.stdin.buffer:
        given = json.loads(line)
        command = Command(**{**given, "files": {name: tuple(span) for name, span in given["files"].items()}})
        answer: dict[str, Any] = {"step": command.step}
        try:
            carry_out(command, memory)
        except OSError as error:
            answer |= {"errno": error.errno, "text": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
