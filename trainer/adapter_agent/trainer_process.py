"""The `train` command: runs a pod's torchrun, waits until what it saved is committed, and leaves the pod's last word."""

import json
import logging
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from adapter_agent import local
from adapter_agent.errors import WaitedTooLong
from adapter_agent.options import TrainOptions
from adapter_api.launch import RENDEZVOUS_TIMEOUT_SECONDS, resolved
from adapter_api.progress import MAX_PROGRESS_BYTES, OUTCOME_FILE, Ending, ExitCode, Outcome, Progress

COMMIT_WAIT_SECONDS = 3600.0
"""How long the last checkpoint may take to be committed before the node fails: storage may be away for a while."""
POLL_SECONDS = 0.2
MAX_MESSAGE = 1800
"""Kubernetes keeps 4096 bytes of a termination message; text beyond ASCII takes up to four each."""
_SAVED = ("Complete", "Stopped")

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> int:
    """Runs the trainer to its end and returns the exit code of its outcome.

    SIGTERM and SIGINT are passed on. After a training that saved, it returns only when the agent beside it knows that
    the checkpoint is committed, so that a pod that succeeded has lost nothing.

    Raises:
        WaitedTooLong: node 0 does not listen for the rendezvous.
    """
    if options.node != 0:
        _await_rendezvous(*options.rendezvous)
    argv = resolved(options.argv, options.node)
    code = _run(argv)
    outcome = _outcome(options.folders.output)
    ending = _ending(code, outcome)
    progress = _progress(options.folders)
    if outcome is not None and outcome.reason in _SAVED:
        progress = _await_commit(options.folders, outcome.step)
        if not _has_committed(progress, outcome.step):
            trouble = progress.upload_error if progress is not None else None
            message = f"step {outcome.step} was saved but not committed: {trouble or 'the agent does not answer'}"
            ending = ending.model_copy(
                update={"exit_code": ExitCode.FAILED, "reason": "NotCommitted", "message": message[:MAX_MESSAGE]}
            )
    if progress is not None:
        ending = ending.model_copy(update={"checkpoint": progress.checkpoint})
    _leave(options.termination_message, ending)
    return ending.exit_code


def _await_rendezvous(host: str, port: int) -> None:
    """Waits for node 0's name to resolve and its port to be open: torchrun gives up sooner than a cluster may take."""
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


def _run(argv: tuple[str, ...]) -> int:
    """The exit code of a process that gets our signals; 128 + n for signal n, as shells say it."""
    process = subprocess.Popen(argv)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number in before:
            # The kubelet's SIGTERM must not end the wait for the commit that follows.
            signal.signal(number, signal.SIG_IGN)
    return code if code >= 0 else 128 - code


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


def _await_commit(folders: local.Folders, step: int) -> Progress | None:
    """The agent's progress when it knows of the commit, or the last one when time is up."""
    end, progress = time.monotonic() + COMMIT_WAIT_SECONDS, _progress(folders)
    told: Callable[[str], None] = log.info
    while not _has_committed(progress, step) and time.monotonic() < end:
        told(f"waiting until checkpoint {step} is committed")
        told = log.debug
        time.sleep(POLL_SECONDS)
        progress = _progress(folders) or progress
    return progress


def _has_committed(progress: Progress | None, step: int) -> bool:
    return progress is not None and progress.checkpoint is not None and progress.checkpoint.step >= step


def _progress(folders: local.Folders) -> Progress | None:
    """What the agent beside us answers."""
    try:
        url = json.loads((folders.agent / "address.json").read_bytes())["url"]
        with urllib.request.urlopen(f"{url}/progress", timeout=5) as answer:  # noqa: S310 - our agent's own address
            return Progress.model_validate_json(answer.read(MAX_PROGRESS_BYTES))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _leave(file: Path, ending: Ending) -> None:
    """Writes the last word where the kubelet reads it; a pod that has no such file still ends with the right code."""
    text = ending.model_dump_json(exclude_none=True)
    if len(text.encode()) > 4096:
        text = ending.model_copy(update={"message": ending.message[:400]}).model_dump_json(exclude_none=True)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning("%s: cannot leave a termination message: %s", file, error.strerror)
    os.write(2, f"adapter_agent: train ended: {text}\n".encode())
