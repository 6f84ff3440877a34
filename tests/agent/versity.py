"""versitygw, a second S3 server: plain files below a folder, real conditional writes, no lifecycle rules."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.agent.seaweed import BUCKET, KEY, SECRET, free_ports
from tests.agent.waiting import wait_until
from tests.cluster.tools import Tools, default_cache

PROGRAM = "versitygw"


class Versity:
    """One server, which may be killed and started again on what it has stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        files, parts = self.folder / "files", self.folder / "sidecar"
        for folder in (files / BUCKET, parts):
            folder.mkdir(parents=True, exist_ok=True)
        argv = [str(Tools(default_cache()).path(PROGRAM)), f"--port=127.0.0.1:{self.port}", "--health=/healthz"]
        argv += ["posix", f"--sidecar={parts}", str(files)]
        env = {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=self.folder)
        wait_until(self._answers)

    def _answers(self) -> bool:
        import http.client

        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """What a crash of the server is to its clients."""
        self.kill()
        self.start()


@contextlib.contextmanager
def versity(folder: Path) -> Iterator[str]:
    """Runs the server inside the block; yields its endpoint URL."""
    server = Versity(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.kill()
