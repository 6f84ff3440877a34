"""The process that a local run's torchruns and trainers are forked from, so that one import of torch serves them all.

It begins to import as soon as the output folder is held, while the embedded store and the agents start.
"""

import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import launch
from adapter_trainer.forked import FORK_SERVER_VARIABLE
from atj import processes
from atj.machine.places import places, trainer_environment
from atj.storage.output_folder import OutputFolder

_FORKED = "adapter_trainer.forked"
_ACCELERATORS = ("nvidiactl", "kfd", "dxg", "accel")
"""Of NVIDIA, AMD, either below Windows, and others: devices that a forked process might not be able to use."""
_LONGEST_ADDRESS = 107
"""Bytes of a Unix socket's path; see unix(7)."""


def is_of_use(devices: Path = Path("/dev")) -> bool:
    """Whether forked trainers can do here what others can: not where there are accelerators."""
    return sys.platform == "linux" and not any((devices / name).exists() for name in _ACCELERATORS)


def forked(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command that does the same in forked processes: torchrun's own, and the trainers that it starts."""
    return tuple(word for given in argv for word in ((given, _FORKED) if given == "-m" else (given,)))


@dataclass
class ForkServer:
    """One run's server."""

    address: str
    """Of its Unix socket."""
    folder: OutputFolder
    environment: Mapping[str, str]
    process: processes.Running | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What those who ask it for a fork need in their environment."""
        return {FORK_SERVER_VARIABLE: self.address}

    @property
    def pid(self) -> int | None:
        """Its process ID, once it has been started."""
        return None if self.process is None else self.process.pid

    def start(self) -> None:
        """Starts it unless it runs: what killed it, most likely a lack of memory, need not happen again."""
        if self.process is not None and self.process.poll() is None:
            return
        Path(self.address).unlink(missing_ok=True)
        # The folder is named so that a list of processes tells whose they are.
        argv = (sys.executable, "-m", "adapter_trainer.fork_server", self.address, str(self.folder.path.resolve()))
        log = self.folder.fork_server_log
        self.process = processes.start(argv, self.environment, log, orphaned=signal.SIGKILL)

    def stop(self) -> None:
        """Ends it; what was forked from it has ended, or is killed."""
        if self.process is None:
            return
        for running in psutil.Process(self.process.pid).children() if self.process.poll() is None else ():
            running.kill()
        self.process.kill()
        self.process.wait()


@contextmanager
def fork_server(job: AdapterTrainingJob, folder: OutputFolder, run_id: str) -> Iterator[ForkServer | None]:
    """A server, not yet started, that ends with the block; None where it would be of no use.

    It has the environment of trainers: it is found as they are, and what libraries read when they are imported is theirs.
    """
    if not is_of_use():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="atj-") as private:
        address = str(Path(private) / "fork-server")
        if len(address.encode()) > _LONGEST_ADDRESS:
            yield None
            return
        train = launch(job, run_id, 1, places(job, folder)[0]).train
        server = ForkServer(address, folder, {**trainer_environment(job), **train.env})
        try:
            yield server
        finally:
            server.stop()
