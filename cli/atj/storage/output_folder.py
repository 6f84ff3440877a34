"""The folder of a local run: where everything lies, who holds it, and what is remembered between runs.

Its content:

    run.json                                what is remembered: the run's identity, where its checkpoints go
    node-<i>/                               the work folder of a node, as a pod has it
    logs/node-<i>-{restore,sync,train}.log  what its three commands print
    logs/fork-server.log                    what the process prints that trainers are forked from
    s3/                                     the embedded store, unless the job names an endpoint
"""

import fcntl
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapter_api.base import Count, ResourceModel
from adapter_api.checkpoint import Sha256
from adapter_api.places import S3Location
from atj.errors import CommandError, refusal


class Completion(ResourceModel):
    """What a finished run had reached, and with which configuration."""

    step: Count
    training_sha256: Sha256


class RunRecord(ResourceModel):
    """What is remembered of a run in run.json."""

    run_id: str
    job: str
    output: S3Location | None = None
    """Where checkpoints go; without an endpoint when they go to the embedded store."""
    store: str | None = None
    """Folder of the embedded store, relative to the output folder."""
    complete: Completion | None = None


@dataclass(frozen=True)
class OutputFolder:
    """Paths below one output folder."""

    path: Path

    @property
    def store(self) -> Path:
        """Folder of the embedded store."""
        return self.path / "s3"

    def work(self, node: int) -> Path:
        """Work folder of a node."""
        return self.path / f"node-{node}"

    def results(self, node: int) -> Path:
        """Folder that a node's trainer writes to."""
        return self.work(node) / "output"

    def log(self, node: int, verb: str) -> Path:
        """What a node's command prints, over all attempts."""
        return self.path / "logs" / f"node-{node}-{verb}.log"

    @property
    def fork_server_log(self) -> Path:
        """What the process prints that trainers are forked from: nothing, if all is well."""
        return self.path / "logs" / "fork-server.log"

    def pictures(self) -> list[Path]:
        """Sample pictures of all nodes, by node and step."""
        return sorted(self.path.glob("node-*/output/samples/*.png"), key=_numbers_in)

    def create(self) -> None:
        """Makes the folder.

        Raises:
            CommandError: it cannot be made or written to.
        """
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(f"{self.path}: cannot be used as output folder: {error.strerror}; choose another") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for one run; the kernel lets go of it when this process ends, however it ends.

        Raises:
            CommandError: another run holds it.
        """
        with (self.path / ".lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise refusal(
                    f"{self.path}: another `atj run` is using this output folder; wait for it, or choose another --output"
                ) from None
            yield

    def record(self) -> RunRecord | None:
        """What is remembered here; None in a new folder.

        Raises:
            CommandError: run.json is there but cannot be understood.
        """
        file = self.path / "run.json"
        try:
            return RunRecord.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its content was not written by atj"
            raise CommandError(f"{file}: cannot be read: {reason}") from None

    def record_of(self, job: str) -> RunRecord:
        """The record that a run of the job named `job` continues, or a new one.

        Raises:
            CommandError: the folder belongs to another job.
        """
        record = self.record()
        if record is None:
            return RunRecord(run_id=str(uuid.uuid4()), job=job)
        if record.job != job:
            raise refusal(f"{self.path}: holds a run of job {record.job!r}, not {job!r}; choose another --output")
        return record

    def remember(self, record: RunRecord) -> None:
        """Writes run.json, whole or not at all."""
        aside = self.path / ".run.json"
        aside.write_text(record.model_dump_json(indent=2, exclude_none=True) + "\n")
        aside.replace(self.path / "run.json")


def _numbers_in(path: Path) -> list[tuple[int, str]]:
    """A key by which step-200 comes before step-1000: the path's texts, and the numbers between them."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.as_posix())]
