"""versitygw, a second S3 server: plain files below a folder, real conditional writes, no lifecycle rules."""

import os
import subprocess
from pathlib import Path

from tests.agent.support.seaweed import BUCKET, KEY, SECRET, answers
from tests.agent.support.store_process import StoreProcess
from tests.cluster.certificates import Certificate
from tests.cluster.tools import Tools, default_cache
from tests.support.ports import free_port

PROGRAM = "versitygw"


class Versity(StoreProcess):
    """One server."""

    def __init__(self, folder: Path, certificate: Certificate | None = None) -> None:
        super().__init__(folder, certificate)
        self.port = free_port()
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.port}"

    def launch(self) -> tuple[list[str], dict[str, str]]:
        """With the bucket's folder made."""
        files, parts = self.folder / "files", self.folder / "sidecar"
        for folder in (files / BUCKET, parts):
            folder.mkdir(parents=True, exist_ok=True)
        users = self.folder / "users"
        users.mkdir(exist_ok=True)
        argv = [str(Tools(default_cache()).path(PROGRAM)), f"--port=127.0.0.1:{self.port}", "--health=/healthz"]
        argv.append(f"--iam-dir={users}")
        if self.certificate is not None:
            argv += [f"--cert={self.certificate.certificate}", f"--key={self.certificate.key}"]
        argv += ["posix", f"--sidecar={parts}", str(files)]
        return argv, {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}

    def add_user(self, access: str, secret: str) -> None:
        """Somebody who may do nothing that no policy allows."""
        admin = [str(Tools(default_cache()).path(PROGRAM)), "admin", f"--access={KEY}", f"--secret={SECRET}"]
        admin += [
            f"--endpoint-url={self.url}",
            "create-user",
            f"--access={access}",
            f"--secret={secret}",
            "--role=user",
        ]
        subprocess.run(admin, check=True, capture_output=True)

    def is_ready(self) -> bool:
        """Whether it answers."""
        return answers(f"{self.url}/healthz")
