"""`rclone serve s3`, which comes as a wheel: plain files below a folder, no conditional writes, no digests kept."""

import os
import shutil
import sysconfig
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.agent.support.seaweed import BUCKET, KEY, SECRET
from tests.agent.support.store_process import StoreProcess
from tests.support.ports import free_port

PROGRAM = "rclone"


class Rclone(StoreProcess):
    """One server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @staticmethod
    def program() -> str:
        """Of the environment; else of the machine."""
        places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        return shutil.which(PROGRAM, path=places) or PROGRAM

    def launch(self) -> tuple[list[str], dict[str, str]]:
        """With the bucket's folder made."""
        files = self.folder / "files"
        (files / BUCKET).mkdir(parents=True, exist_ok=True)
        argv = [self.program(), "serve", "s3", f"--addr=127.0.0.1:{self.port}", f"--auth-key={KEY},{SECRET}"]
        return [*argv, "--config=/dev/null", str(files)], dict(os.environ)

    def is_ready(self) -> bool:
        """Whether it answers. It has no page for that."""
        client = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )  # fmt: skip
        try:
            client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
        except (ClientError, BotoCoreError):
            return False
        finally:
            client.close()
        return True
