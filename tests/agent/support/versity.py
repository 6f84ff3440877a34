"""versitygw, a second S3 server: plain files below a folder, real conditional writes, no lifecycle rules."""

import os
from pathlib import Path

from tests.agent.support.seaweed import BUCKET, KEY, SECRET, answers
from tests.agent.support.store_process import StoreProcess
from tests.cluster.tools import Tools, default_cache
from tests.support.ports import free_port

PROGRAM = "versitygw"


class Versity(StoreProcess):
    """One server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def launch(self) -> tuple[list[str], dict[str, str]]:
        """With the bucket's folder made."""
        files, parts = self.folder / "files", self.folder / "sidecar"
        for folder in (files / BUCKET, parts):
            folder.mkdir(parents=True, exist_ok=True)
        argv = [str(Tools(default_cache()).path(PROGRAM)), f"--port=127.0.0.1:{self.port}", "--health=/healthz"]
        argv += ["posix", f"--sidecar={parts}", str(files)]
        return argv, {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}

    def is_ready(self) -> bool:
        """Whether it answers."""
        return answers(f"{self.url}/healthz")
