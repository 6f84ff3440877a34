"""The processes of one attempt: on every node `restore`, then `sync` and `train`, with the commands that pods run.

Trainers start together with `restore` and import their libraries meanwhile; they begin to train when it is done.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapter_api.document import dump
from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import BEGIN_VARIABLE, Command, launch
from adapter_api.layout import ADDRESS_FILE, AGENT_FOLDER, OUTCOME_FILE, PROGRESS_FILE, TRAINING_FILE
from adapter_api.progress import FENCED_REASON, ExitCode, Outcome, ends_for_good, is_users
from atj import processes
from atj.machine.fork_server import ForkServer, forked
from atj.machine.places import places
from atj.storage.output_folder import OutputFolder

POLL_SECONDS = 0.2
_RESTORE_POLL_SECONDS = 0.05
"""Seconds between two polls of the agents: shorter than in a cluster, because the whole run waits for it."""
_LOG_BYTES = 8192
_LOG_LINES = 12


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended before its time."""

    node: int
    verb: str
    code: int
    """Return code of the process; negative for a signal."""
    reason: str
    message: str
    log: Path

    @property
    def is_final(self) -> bool:
        """Whether another attempt cannot help."""
        return ends_for_good(self.reason, self.code)

    @property
    def is_users(self) -> bool:
        """Whether the user has to change something."""
        return is_users(self.reason, self.code)

    def __str__(self) -> str:
        return f"node {self.node}: {self.verb} ended with {processes.ending(self.code)} ({self.reason})"


class Gang:
    """All nodes of one attempt."""

    def __init__(
        self,
        job: AdapterTrainingJob,
        folder: OutputFolder,
        run_id: str,
        attempt: int,
        agent_env: Mapping[str, str],
        train_env: Mapping[str, str],
        server: ForkServer | None = None,
    ) -> None:
        self.folder = folder
        self.run_id = run_id
        self.attempt = attempt
        self._training = job.spec.training
        self._grace_seconds = float(job.grace_seconds)
        self._launches = [launch(job, run_id, attempt, place) for place in places(job, folder)]
        self._agent_env = dict(agent_env)
        self._train_env = dict(train_env)
        self._server = server
        self._sync: list[processes.Running] = []
        self._train: list[processes.Running] = []

    @property
    def nodes(self) -> range:
        """Indices of the nodes."""
        return range(len(self._launches))

    def prepare(self) -> None:
        """Ends processes that an earlier command may have left, and removes the reports of an earlier attempt."""
        self.kill()
        if self._server is not None:
            self._server.start()
        for node in self.nodes:
            results = self.folder.results(node)
            results.mkdir(parents=True, exist_ok=True)
            for stale in (OUTCOME_FILE, PROGRESS_FILE):
                (results / stale).unlink(missing_ok=True)
            (self.folder.work(node) / AGENT_FOLDER / ADDRESS_FILE).unlink(missing_ok=True)
            self._begin_file(node).unlink(missing_ok=True)
            (self.folder.work(node) / TRAINING_FILE).write_text(dump(self._training), encoding="utf-8")

    def restore(self, interrupted: Callable[[], bool]) -> Failure | None:
        """Runs `restore` on all nodes, to its end or until interrupted; also starts `train`, which waits for that end."""
        running = [self._start(node, "restore", self._launches[node].restore) for node in self.nodes]
        for node in self.nodes:
            self._train.append(self._start(node, "train", self._launches[node].train))
        while not interrupted():
            codes = [process.poll() for process in running]
            if failure := self._first_failure("restore", codes) or self.failure():
                self.kill()
                return failure
            if all(code == 0 for code in codes):
                return None
            time.sleep(_RESTORE_POLL_SECONDS)
        self.kill()
        return None

    def start(self) -> None:
        """Starts `sync` on every node, and lets training begin."""
        for node in self.nodes:
            self._sync.append(self._start(node, "sync", self._launches[node].sync))
        for node in self.nodes:
            self._begin_file(node).touch()

    def failure(self) -> Failure | None:
        """Returns the failure of the first process that ended badly."""
        return self._first_failure("train", [process.poll() for process in self._train]) or self._first_failure(
            "sync", [process.poll() for process in self._sync]
        )

    def has_trained(self) -> bool:
        """Whether the trainers of all nodes have ended."""
        return all(process.poll() is not None for process in self._train)

    def has_synced(self) -> bool:
        """Whether the agents of all nodes have ended."""
        return all(process.poll() is not None for process in self._sync)

    def outcome(self, node: int) -> Outcome | None:
        """Returns how a node's trainer reports its end."""
        try:
            return Outcome.model_validate_json((self.folder.results(node) / OUTCOME_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def stop_training(self, meanwhile: Callable[[], None]) -> None:
        """Lets the trainers save and end, then kills those that have not ended."""
        processes.terminate(self._train)
        _wait(self.has_trained, self._grace_seconds, meanwhile)
        self.kill_training()

    def drain(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        """Asks the agents to finish their uploads and end. Returns False if they do not within `seconds`."""
        processes.terminate(self._sync)
        return _wait(self.has_synced, seconds, meanwhile)

    def kill_training(self) -> None:
        """Kills every process of this run except the agents, also those whose parents are gone."""
        processes.kill(self._mark, spare=self._sync, sparing=self._spared)

    def kill(self) -> None:
        """Kills every process of this run except the one that the next attempt's are forked from."""
        processes.kill(self._mark, sparing=self._spared)

    @property
    def _spared(self) -> int | None:
        return None if self._server is None else self._server.pid

    @property
    def _mark(self) -> dict[str, str]:
        return {"ADAPTER_TRAINING_RUN_ID": self.run_id}

    def _begin_file(self, node: int) -> Path:
        return self.folder.work(node) / "restored"

    def _start(self, node: int, verb: str, command: Command) -> processes.Running:
        train_env = {**self._train_env, BEGIN_VARIABLE: str(self._begin_file(node).resolve())}
        env = {**(train_env if verb == "train" else self._agent_env), **command.env}
        argv = command.argv
        if verb == "train" and self._server is not None:
            argv, env = forked(argv), {**env, **self._server.variables}
        log = self.folder.log(node, verb)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"--- attempt {self.attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        # Without this command nothing that is saved is ever committed, and its store ends: an agent that is asked to end
        # would go on trying to upload to that.
        return processes.start(argv, env, log, orphaned=signal.SIGKILL)

    def _first_failure(self, verb: str, codes: list[int | None]) -> Failure | None:
        """Returns, of several processes that ended together, the one that is most likely the cause."""
        failures = [self._failure_of(node, verb, code) for node, code in enumerate(codes) if code]
        # A lost node takes the others down with it; they can only report that communication broke.
        return min(failures, key=lambda failure: failure.reason == "CommunicationFailed", default=None)

    def _failure_of(self, node: int, verb: str, code: int) -> Failure:
        outcome = self.outcome(node) if verb == "train" else None
        log = self.folder.log(node, verb)
        if outcome is not None and outcome.reason not in ("Complete", "Stopped"):
            return Failure(node, verb, code, outcome.reason, outcome.message, log)
        reason = "Killed" if code < 0 else FENCED_REASON if code == ExitCode.FENCED else "Failed"
        return Failure(node, verb, code, reason, last_lines(log), log)


def _wait(is_done: Callable[[], bool], seconds: float, meanwhile: Callable[[], None]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            return False
        meanwhile()
        time.sleep(POLL_SECONDS)
    return True


def last_lines(log: Path) -> str:
    """Returns the end of a log, from the last attempt only."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - _LOG_BYTES, 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in text.rpartition("--- attempt ")[2].splitlines()[1:] if line.strip()]
    return "\n".join(lines[-_LOG_LINES:])
