"""Saves checkpoints while training continues: a copy in host memory, which a separate process writes to disk.

The saved state changes only in the optimizer's step, so the copy is made during the next forward and backward pass, and
training waits only if these end before the copy does. One save is in progress at a time; the next one waits for it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, cast

import torch

from adapter_api.checkpoint import folder_name
from adapter_api.layout import METRICS_FILE
from adapter_api.retention import Policy
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.arena import Arena, Contents
from adapter_trainer.checkpoint.copying import Copy, DeviceCopy, HostCopy
from adapter_trainer.checkpoint.writer import Command
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DiskFull, TrainingError

SLOW_SECONDS = 2.0
"""Seconds of waiting for the disk that are worth a message."""
CLOSING_SECONDS = 30.0
_LOOK_SECONDS = 0.02


class Saver:
    """Saves one rank's part of each checkpoint. The training thread calls every method."""

    def __init__(
        self, output: Path, processes: Processes, device: torch.device, policy: Policy,
        show: Callable[[str], None], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._output = output
        self._processes = processes
        self._policy = policy
        self._show = show
        self._clock = clock
        self._arena = Arena(device)
        self._writer: _Writer | None = None
        self._thread = ThreadPoolExecutor(1, "save")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copy: Copy | None = None
        self._written: Future[None] | None = None
        self._is_closing = False
        self.step: int | None = None
        """Step of the newest save that has started."""
        self.seconds = 0.0
        """Seconds that the newest finished save took, from its start."""

    @property
    def is_failed(self) -> bool:
        """Whether the save in progress has failed."""
        return isinstance(self._state(), Exception)

    def begin(self, step: int, contents: Contents) -> None:
        """Starts to save checkpoint-<step> after the previous save has finished; collective.

        What `contents` refers to must not change before `settle`.
        """
        pairs, spans = self._arena.place(contents)
        command = Command(
            aside=str(self._output / f".{folder_name(step)}.tmp"),
            final=str(self._output / folder_name(step)),
            files={name: (span.offset, span.size) for name, span in spans.items()},
            step=step,
            rank=self._processes.rank,
            sharing=list(self._processes.sharing),
            doomed=self._doomed(step, contents),
            pass_id=self._processes.pass_id,
        )
        writer = self._writer = self._writer or _Writer(self._arena.descriptor)
        copy = HostCopy(pairs) if self._stream is None else DeviceCopy(pairs, self._stream)
        self.step, self._copy = step, copy
        self._written = self._thread.submit(self._save, copy, writer, command, self._clock())

    def settle(self) -> None:
        """Returns when the state that is being saved may change. Call it before every optimizer step."""
        if self._copy is not None:
            self._copy.settle()
            self._copy = None

    def newest(self) -> int | None:
        """Returns the step of a save that has finished since the last call, if there is one."""
        if self._written is None or self._state() != "written":
            return None
        self._written = None
        return self.step

    def finish(self) -> int | None:
        """Waits for the save in progress, on every rank; collective. Returns its step, if there was one.

        Raises:
            DiskFull, TrainingError: It failed on a rank; older checkpoints are kept.
        """
        self.settle()
        started = self._clock()
        while True:
            # A rank that has failed must not leave the leader waiting for its files: states are compared, not awaited.
            states = self._processes.gather(self._state())
            error = next((state for state in states if isinstance(state, Exception)), None)
            if error is not None:
                self._abandon()
                raise error
            if "pending" not in states:
                break
            if self._written is not None:
                wait([self._written], _LOOK_SECONDS)
        if self._clock() - started > SLOW_SECONDS:
            self._show(f"waited {self._clock() - started:.1f} s for checkpoint-{self.step} to reach the disk")
        return self.newest()

    def failure(self) -> Exception | None:
        """Waits for the save in progress. Returns why it failed, if it did."""
        if self._written is not None:
            wait([self._written], CLOSING_SECONDS)
        state = self._state()
        return state if isinstance(state, Exception) else None

    def close(self) -> None:
        """Ends the writer. A save in progress has some time to finish; if it does not, it leaves nothing."""
        if self._written is not None:
            wait([self._written], CLOSING_SECONDS)
        if self._state() in {"none", "written"}:
            self._end()
        else:
            self._abandon()  # on a full disk, it would leave no room to say so

    # --- details ---

    def _state(self) -> Exception | str:
        if self._written is None:
            return "none"
        if not self._written.done():
            return "pending"
        error = self._written.exception()
        return error if isinstance(error, Exception) else "written"

    def _abandon(self) -> None:
        self._end()
        if self._processes.is_leader and self.step is not None:
            shutil.rmtree(self._output / f".{folder_name(self.step)}.tmp", ignore_errors=True)

    def _end(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self._writer is not None:
            self._writer.kill()
        self._thread.shutdown(wait=True)
        self._arena.close()

    def _doomed(self, step: int, contents: Contents) -> list[str]:
        """Returns the folders to delete once this checkpoint is there: each folder's leader deletes its own.

        Rank 0's folder has the metrics that the best are chosen by.
        """
        metrics: dict[int, dict[str, float]] = {}
        if self._policy.best is not None:
            if self._processes.is_main:
                newest = checkpoint_folder.figures_in(contents.blobs.get(METRICS_FILE, b"{}"))
                metrics = {**checkpoint_folder.metrics_of(self._output), step: newest}
            metrics = self._processes.gather(metrics)[0]
        if not self._processes.is_leader:
            return []
        gone = checkpoint_folder.doomed(self._output, self._policy, step, metrics)
        return [str(self._output / folder_name(old)) for old in gone]

    def _save(self, copy: Copy, writer: "_Writer", command: Command, began: float) -> None:
        """Copies and writes one save, in the saving thread."""
        copy.complete()
        answer = writer.ask(command)
        if answer is None and not self._is_closing:
            self._show(f"the process that writes checkpoints was killed ({writer.end()}); another one writes the copy")
            writer = self._writer = _Writer(self._arena.descriptor)
            answer = writer.ask(command)
        if answer is None:
            raise TrainingError(
                f"{command.final}: the process that writes checkpoints was killed ({writer.end()}), twice; is memory "
                "short? Earlier checkpoints are kept"
            )
        if "text" in answer:
            raise _told(command.final, answer)
        self.seconds = self._clock() - began


class _Writer:
    """The trainer's side of a process of `adapter_trainer.checkpoint.writer`."""

    def __init__(self, memory: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adapter_trainer.checkpoint.writer", str(memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(memory,), env=environment,
        )  # fmt: skip
        self._commands, self._answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)

    def ask(self, command: Command) -> dict[str, Any] | None:
        """Returns the process's answer; None if it has died."""
        try:
            self._commands.write(command.to_line())
            self._commands.flush()
        except OSError:
            return None
        line = self._answers.readline()
        answer: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return answer

    def end(self) -> str:
        """Waits for the end of the process, and describes it."""
        code = self._process.wait()
        self._answers.close()
        with contextlib.suppress(OSError):  # what it has not read is of no use to anybody
            self._commands.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self.end()


def _told(final: str, answer: dict[str, Any]) -> TrainingError:
    if checkpoint_folder.is_full(OSError(answer["errno"], answer["text"])):
        return DiskFull(
            f"{final}: no space left on the device; free some, or keep fewer checkpoints (checkpoint.keep_last). "
            "Earlier checkpoints are kept"
        )
    return TrainingError(f"{final}: cannot be written: {answer['text']}")
