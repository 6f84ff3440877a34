"""The `train` command: runs a pod's torchrun, waits until its last save is committed, and writes the termination message."""

import json
import logging
import math
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

from pydantic import ValidationError

from adapter_agent import local_files
from adapter_agent.errors import WaitedTooLong
from adapter_agent.options import TrainOptions
from adapter_agent.syncing import stopping
from adapter_api.launch import RENDEZVOUS_TIMEOUT_SECONDS, resolved
from adapter_api.layout import ADDRESS_FILE, OUTCOME_FILE
from adapter_api.progress import MAX_PROGRESS_BYTES, Ending, ExitCode, Outcome, Progress

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses without any proxy of the environment, which does not reach the agent of the same pod."""
COMMIT_WAIT_SECONDS = 3600.0
"""Seconds for the commit of the last checkpoint, after which the node fails: storage may be away for a while."""
POLL_SECONDS = 0.2
MAX_MESSAGE = 1800
"""Kubernetes keeps 4096 bytes of a termination message; text beyond ASCII takes up to four bytes a character."""
_SAVED = ("Complete", "Stopped")

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> int:
    """Runs the trainer to its end and returns the exit code of its outcome.

    SIGTERM and SIGINT are passed on. After a training that saved, it returns only when the agent beside it knows that
    the checkpoint is committed, so that a pod that succeeded has lost nothing; told to stop, it returns in time to say
    what was not.

    Raises:
        WaitedTooLong: node 0 does not listen for the rendezvous.
    """
    if options.node != 0:
        _await_rendezvous(*options.rendezvous)
    stopping.withdraw(options.folders)
    argv = resolved(options.argv, options.node)
    with _Stop(options) as stop:
        code = stop.run(argv)
        if code is None:
            ending, progress = _unsaved(options, _progress(options.folders)), None
        else:
            ending, progress = _ended(options.folders, code, stop)
    if progress is not None:
        ending = ending.model_copy(update={"checkpoint": progress.checkpoint})
    _leave(options.termination_message, ending)
    return ending.exit_code


def _ended(folders: local_files.Folders, code: int, stop: "_Stop") -> tuple[Ending, Progress | None]:
    """How a trainer ended, and the last progress that the agent reported."""
    outcome = _outcome(folders.output)
    ending, progress = _ending(code, outcome), _progress(folders)
    if outcome is None or outcome.reason not in _SAVED:
        return ending, progress
    progress = _await_commit(folders, outcome.step, stop)
    if _has_committed(progress, outcome.step):
        return ending, progress
    if stop.is_over:
        told = {"exit_code": ExitCode.STOPPED, "message": _uncommitted(outcome.step, progress, stop.grace_seconds)}
    else:
        trouble = progress.upload_error if progress is not None else None
        message = f"step {outcome.step} was saved but not committed: {trouble or 'the agent does not answer'}"
        told = {"exit_code": ExitCode.FAILED, "message": message[:MAX_MESSAGE]}
    return ending.model_copy(update={"reason": "NotCommitted", **told}), progress


def _unsaved(options: TrainOptions, progress: Progress | None) -> Ending:
    """The outcome of a stop in whose time the trainer did not end."""
    step = 0 if progress is None else progress.step
    took = "" if progress is None or progress.save_seconds is None else f"; the save before took {progress.save_seconds:.0f} s"  # fmt: skip
    message = (
        f"not saved within the {options.grace_seconds:g} s that a stop has{took}; {_standing(progress)}. "
        "Set spec.terminationGracePeriodSeconds higher"
    )
    checkpoint = None if progress is None else progress.checkpoint
    return Ending(exit_code=ExitCode.STOPPED, reason="NotSaved", message=message, step=step, checkpoint=checkpoint)


def _uncommitted(step: int, progress: Progress | None, grace_seconds: float) -> str:
    message = f"step {step} was saved, but not committed within the {grace_seconds:g} s that a stop has"
    if progress is None:
        return f"{message}: the agent does not answer"
    if progress.upload_error is not None:
        return f"{message}: {progress.upload_error}; {_standing(progress)}"[:MAX_MESSAGE]
    if not progress.pending_bytes or not progress.upload_bytes_per_second:
        return f"{message}; {_standing(progress)}. Set spec.terminationGracePeriodSeconds higher"
    rest = progress.pending_bytes / progress.upload_bytes_per_second
    return (
        f"{message}: {progress.pending_bytes} bytes were left, at {progress.upload_bytes_per_second:.3g} bytes a second; "
        f"{_standing(progress)}. Set spec.terminationGracePeriodSeconds to {math.ceil(grace_seconds + rest)} or more"
    )


def _standing(progress: Progress | None) -> str:
    if progress is None or progress.checkpoint is None:
        return "nothing is committed yet"
    return f"checkpoint {progress.checkpoint.step} is committed"


def _await_rendezvous(host: str, port: int) -> None:
    """Waits until node 0's name resolves and its port is open: torchrun gives up sooner than a cluster may take."""
    end = time.monotonic() + RENDEZVOUS_TIMEOUT_SECONDS
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except OSError as error:
            if time.monotonic() >= end:
                raise WaitedTooLong(
                    f"node 0 did not listen at {host}:{port} within {RENDEZVOUS_TIMEOUT_SECONDS} s ({error}); "
                    "look at its log, and whether network policies let the nodes of a job reach each other"
                ) from error
            time.sleep(POLL_SECONDS)


class _Stop:
    """The request to stop, by SIGTERM or SIGINT: passed to the trainer, announced to the agent, and limited in time."""

    def __init__(self, options: TrainOptions) -> None:
        self.grace_seconds = options.grace_seconds
        self._folders = options.folders
        self._process: subprocess.Popen[bytes] | None = None
        self._end: float | None = None

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def is_over(self) -> bool:
        """Whether a stop was requested and its time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def run(self, argv: tuple[str, ...]) -> int | None:
        """Returns the exit code of a process that gets our signals; 128 + n for signal n, as shells report it.

        None if the process still ran when the time of a stop was up: it ends with the container.
        """
        self._process = subprocess.Popen(argv)
        try:
            code = self._process.wait()
        except TimeoutError:
            return None
        finally:
            # From now on a signal starts the clock only: it must not end the wait for the commit that follows.
            self._process = None
        return code if code >= 0 else 128 - code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._process is not None:
            self._process.send_signal(number)
        if self._end is None:
            self._end = time.monotonic() + self.grace_seconds
            signal.setitimer(signal.ITIMER_REAL, self.grace_seconds)
            stopping.announce(self._folders, self.grace_seconds)

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self._process is not None:
            raise TimeoutError


def _outcome(output: Path) -> Outcome | None:
    try:
        return Outcome.model_validate_json((output / OUTCOME_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _ending(code: int, outcome: Outcome | None) -> Ending:
    if outcome is None:
        reason = "Killed" if code > 128 else "Failed"
        return Ending(exit_code=code or ExitCode.FAILED, reason=reason, message="the trainer left no outcome")
    # torchrun turns every failure of its processes into 1.
    ended = outcome.exit_code if code == 0 or outcome.exit_code != 0 else code
    return Ending(
        exit_code=ended,
        reason=outcome.reason if ended == outcome.exit_code else "Failed",
        message=outcome.message[:MAX_MESSAGE],
        step=outcome.step,
        rank=outcome.rank,
    )


def _await_commit(folders: local_files.Folders, step: int, stop: _Stop) -> Progress | None:
    """Returns the agent's progress once it knows of the commit, or the last one when time is up."""
    end, progress = time.monotonic() + COMMIT_WAIT_SECONDS, _progress(folders)
    told: Callable[[str], None] = log.info
    while not _has_committed(progress, step) and time.monotonic() < end and not stop.is_over:
        told(f"waiting until checkpoint {step} is committed")
        told = log.debug
        time.sleep(POLL_SECONDS)
        progress = _progress(folders) or progress
    return progress


def _has_committed(progress: Progress | None, step: int) -> bool:
    return progress is not None and progress.checkpoint is not None and progress.checkpoint.step >= step


def _progress(folders: local_files.Folders) -> Progress | None:
    """Asks the agent of the same pod for its progress."""
    try:
        url = json.loads((folders.agent / ADDRESS_FILE).read_bytes())["url"]
        with _DIRECT.open(f"{url}/progress", timeout=5) as answer:
            return Progress.model_validate_json(answer.read(MAX_PROGRESS_BYTES))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _leave(file: Path, ending: Ending) -> None:
    """Writes the message to the file that the kubelet reads. A pod without such a file still ends with the right code."""
    text = ending.model_dump_json(exclude_none=True)
    if len(text.encode()) > 4096:
        text = ending.model_copy(update={"message": ending.message[:400]}).model_dump_json(exclude_none=True)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning("%s: cannot leave a termination message: %s", file, error.strerror)
    os.write(2, f"adapter_agent: train ended: {text}\n".encode())
