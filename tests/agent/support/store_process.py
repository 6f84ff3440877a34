"""An object store as a process of the tests, which may be killed and started again on what it has stored."""

import contextlib
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from tests.cluster.certificates import Certificate
from tests.support.waiting import wait_until


class StoreProcess(ABC):
    """One server."""

    url: str

    def __init__(self, folder: Path, certificate: Certificate | None = None) -> None:
        self.folder = folder
        self.certificate = certificate
        """With which it serves TLS; None: plain HTTP."""
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def launch(self) -> tuple[list[str], dict[str, str]]:
        """The command and its environment."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers, and the bucket is there."""

    def start(self) -> None:
        """Returns when it answers."""
        argv, env = self.launch()
        with (self.folder / "log").open("ab") as log:
            # As a server of its own: a session, which the kernel may schedule as one, is not shared with who starts it.
            self.process = subprocess.Popen(
                argv, env=env, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        wait_until(
            f"{argv[0]} answers", self.is_ready, state=lambda: (self.folder / "log").read_text(errors="replace")[-2000:]
        )

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """What a crash of the server is to its clients."""
        self.kill()
        self.start()


Server = TypeVar("Server", bound=StoreProcess)


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Runs a server inside the block."""
    try:
        server.start()
        yield server
    finally:
        server.kill()
