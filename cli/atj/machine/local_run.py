"""Runs a job on this machine: attempts, each from the newest commit, until the final checkpoint is committed."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from adapter_api.checkpoint import CheckpointIndex, IndexEntry
from adapter_api.job import AdapterTrainingJob
from adapter_api.progress import ExitCode, Progress
from atj.errors import CommandError
from atj.machine.fork_server import ForkServer
from atj.machine.gang import POLL_SECONDS, Failure, Gang
from atj.machine.interrupts import Interrupts
from atj.machine.node_progress import read_progress
from atj.machine.places import trainer_environment
from atj.machine.progress_display import Display
from atj.storage.committed import Committed
from atj.storage.output_folder import Completion, OutputFolder, RunRecord
from atj.terminal import duration

_DRAIN_SECONDS = 15.0
"""Seconds for which agents may continue to upload after a failure: what they commit need not be trained again."""
_PROGRESS_SECONDS = 0.5
"""Seconds between two questions to node 0's agent."""


@dataclass(frozen=True)
class Ending:
    """The end of a run that did not fail."""

    state: Literal["complete", "already complete", "interrupted"]
    newest: IndexEntry | None
    """The newest committed checkpoint."""


def run_job(
    job: AdapterTrainingJob,
    folder: OutputFolder,
    record: RunRecord,
    display: Display,
    *,
    embedded_in: str | None = None,
    server: ForkServer | None = None,
) -> Ending:
    """Trains until the job's final checkpoint is committed, or until interrupted.

    Args:
        job: Every location in it can be reached as it stands, with the credentials in the environment.
        folder: Held by the caller; made if it is not there.
        record: What is remembered of the run there.
        display: Told what happens.
        embedded_in: Folder, relative to `folder`, of the embedded store that the job's output goes to, if it does.
        server: What the trainers are forked from; without it each imports its libraries for itself.

    Raises:
        CommandError: an attempt failed and is not tried again.
        StorageError: object storage cannot be used.
    """
    folder.create()
    committed = Committed(job.spec.output.s3)
    index = committed.index()
    if _is_complete(record, job, index):
        return Ending("already complete", committed.newest())
    where = job.spec.output.s3
    if embedded_in is not None:
        # The store has another port in every run.
        where = where.model_copy(update={"endpoint_url": None})
    record = record.model_copy(update={"output": where, "store": embedded_in, "complete": None})
    folder.remember(record)
    with Interrupts() as interrupts:
        run = _Run(job, folder, display, committed, record.run_id, interrupts, server)
        final_step = run.to_the_end(index)
    if final_step is not None:
        done = Completion(step=final_step, training_sha256=_digest(job))
        folder.remember(record.model_copy(update={"complete": done}))
    return Ending("interrupted" if final_step is None else "complete", committed.newest())


def _is_complete(record: RunRecord, job: AdapterTrainingJob, index: CheckpointIndex | None) -> bool:
    """Whether this very configuration has been trained to its end, and its checkpoint still exists."""
    done = record.complete
    newest = None if index is None else index.newest
    return (
        done is not None
        and newest is not None
        and newest.step >= done.step
        and record.output is not None
        and record.output.uri == job.spec.output.s3.uri
        and done.training_sha256 == _digest(job)
    )


def _digest(job: AdapterTrainingJob) -> str:
    return hashlib.sha256(job.spec.training.model_dump_json().encode()).hexdigest()


@dataclass
class _Run:
    job: AdapterTrainingJob
    folder: OutputFolder
    display: Display
    committed: Committed
    run_id: str
    interrupts: Interrupts
    server: ForkServer | None
    progress: Progress | None = None
    asked_at: float = field(default=0.0, repr=False)

    def to_the_end(self, index: CheckpointIndex | None) -> int | None:
        """Returns the step of the final checkpoint once it is committed; None if interrupted.

        Raises:
            CommandError: An attempt failed and is not tried again.
        """
        restart = self.job.spec.restart
        for failures in range(restart.max_restarts + 1):
            attempt = (0 if index is None else index.attempt) + 1
            newest = None if index is None else index.newest
            self._announce(attempt, newest)
            ended = self._attempt(attempt)
            if not isinstance(ended, Failure):
                return ended
            index = self.committed.index()
            if ended.is_final or failures == restart.max_restarts:
                raise self._given_up(attempt, ended, failures)
            wait = float(restart.backoff(failures + 1))
            self._explain(attempt, ended)
            self.display.say(
                f"Restart {failures + 1} of {restart.max_restarts} from {_place(index)} in {duration(wait)}.", "yellow"
            )
            if not self._sleep(wait, attempt):
                return None
        raise AssertionError("the last failure is raised inside the loop")

    def _attempt(self, attempt: int) -> Failure | int | None:
        """Returns why the attempt failed, or the step of its final checkpoint, or None if interrupted."""
        gang = Gang(
            self.job, self.folder, self.run_id, attempt,
            agent_env={**os.environ, "PYTHONUNBUFFERED": "1"}, train_env=trainer_environment(self.job),
            server=self.server,
        )  # fmt: skip
        self.progress = None
        try:
            gang.prepare()
            if failure := gang.restore(lambda: self._is_interrupted("restoring", attempt)):
                return failure
            if self.interrupts.asked:
                return None
            gang.start()
            return self._watch(gang, attempt)
        finally:
            gang.kill()

    def _watch(self, gang: Gang, attempt: int) -> Failure | int | None:
        def show() -> None:
            self._show(attempt, "starting")

        while not gang.has_trained() and not self.interrupts.asked:
            if failure := gang.failure():
                return self._abandon(gang, failure, show)
            show()
            time.sleep(POLL_SECONDS)
        if not gang.has_trained():
            self.display.say("Stopping: the trainers save at the next step. Press Ctrl-C again to kill them.", "yellow")
            gang.stop_training(show)
        outcome = gang.outcome(0)
        if self.interrupts.asked and (outcome is None or outcome.reason != "Complete"):
            gang.drain(self._grace, show)
            return None
        if failure := gang.failure():
            return self._abandon(gang, failure, show)
        final_step = outcome.step if outcome is not None else 0
        return self._commit(gang, final_step, show)

    def _commit(self, gang: Gang, final_step: int, show: Callable[[], None]) -> Failure | int | None:
        """Waits for the agents to commit the last checkpoint: while uploads make progress, then for the grace period."""
        trouble_since: float | None = None
        while not self._has_committed(final_step) and not self.interrupts.asked:
            if failure := gang.failure():
                return self._abandon(gang, failure, show)
            in_trouble = self.progress is None or self.progress.upload_error is not None
            trouble_since = (trouble_since or time.monotonic()) if in_trouble else None
            if gang.has_synced() or (trouble_since and time.monotonic() - trouble_since > self._grace):
                break
            show()
            time.sleep(POLL_SECONDS)
        trouble = self.progress.upload_error if self.progress is not None else None
        gang.drain(self._grace, show)
        newest = self.committed.newest()
        if newest is not None and newest.step >= final_step:
            return final_step
        if self.interrupts.asked:
            return None
        message = trouble or "the agents ended without it"
        return Failure(
            0, "sync", int(ExitCode.FAILED), "NotCommitted",
            f"training reached step {final_step}, but its checkpoint was not committed: {message}",
            self.folder.log(0, "sync"),
        )  # fmt: skip

    def _abandon(self, gang: Gang, failure: Failure, show: Callable[[], None]) -> Failure:
        gang.kill_training()
        gang.drain(_DRAIN_SECONDS, show)
        return failure

    def _has_committed(self, step: int) -> bool:
        checkpoint = self.progress.checkpoint if self.progress is not None else None
        return checkpoint is not None and checkpoint.step >= step

    @property
    def _grace(self) -> float:
        return float(self.job.grace_seconds)

    def _show(self, attempt: int, waiting_for: str) -> None:
        if time.monotonic() - self.asked_at >= _PROGRESS_SECONDS:
            self.progress = read_progress(self.folder.work(0)) or self.progress
            self.asked_at = time.monotonic()
        self.display.show(attempt, self.progress, waiting_for)

    def _is_interrupted(self, doing: str, attempt: int) -> bool:
        self.display.show(attempt, None, doing)
        return self.interrupts.asked

    def _sleep(self, seconds: float, attempt: int) -> bool:
        """Sleeps. Returns False if interrupted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.interrupts.asked:
            self.display.show(attempt, None, "failed; waiting to restart")
            time.sleep(POLL_SECONDS)
        return not self.interrupts.asked

    def _announce(self, attempt: int, newest: IndexEntry | None) -> None:
        spec = self.job.spec
        start = "from the beginning" if newest is None else f"from the committed checkpoint of step {newest.step}"
        nodes = "1 node" if spec.nodes == 1 else f"{spec.nodes} nodes"
        processes = "1 process" if spec.processes == 1 else f"{spec.processes} processes"
        self.display.say(f"Attempt {attempt} {start}: {nodes}, each with {processes}.")

    def _explain(self, attempt: int, failure: Failure) -> None:
        self.display.say(f"Attempt {attempt} failed: {failure}", "yellow")
        if failure.message:
            self.display.say(_indented(failure.message))
        self.display.say(f"  log: {failure.log}")

    def _given_up(self, attempt: int, failure: Failure, restarts: int) -> CommandError:
        tried = "" if failure.is_final or not restarts else f" after {restarts} restart{'s' * (restarts > 1)}"
        message = f"attempt {attempt} failed{tried}: {failure}\n{_indented(failure.message)}\n  log: {failure.log}"
        return CommandError(message, ExitCode.INVALID if failure.is_users else ExitCode.FAILED)


def _place(index: CheckpointIndex | None) -> str:
    newest = None if index is None else index.newest
    return "the beginning" if newest is None else f"step {newest.step}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
