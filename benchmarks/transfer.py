"""The agent's transfers against boto3's and s5cmd's: time, processor time, memory; and what is sent a second time."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

from adapter_agent.checkpoints import index
from adapter_agent.local_files import Folders
from adapter_agent.storage.store import Store
from benchmarks.quickstart import ROOT
from benchmarks.transfer_client import FILE_BYTES, FILES
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import Node, end, safetensors, stop, write_checkpoint
from tests.agent.support.seaweed import BUCKET, KEY, SECRET, Seaweed
from tests.agent.support.store_process import Server, StoreProcess, serving
from tests.agent.support.versity import PROGRAM, Versity
from tests.cluster.certificates import Authority
from tests.cluster.tools import Tools, default_cache
from tests.support.waiting import wait_until

TITLE = "Upload and restore"
ROUNDS = 2
UPLOADS = ("boto3 upload_file", "s5cmd cp, upload", "agent, upload")
DOWNLOADS = ("boto3 download_file", "boto3 download_file, then SHA-256", "s5cmd cp, download", "agent, restore")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
SAVES, FROZEN_BYTES, TRAINED_BYTES = 10, 64 * 2**20, 4 * 2**20


@dataclass(frozen=True)
class Run:
    """One transfer of one GiB."""

    seconds: float
    cpu: float
    """Processor seconds of the client's processes, after its imports."""
    server_cpu: float
    memory: float
    """Peak resident, MiB."""


def measure() -> str:
    """The section's text."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        for number in range(FILES):
            (folder / f"file-{number}.bin").write_bytes(os.urandom(FILE_BYTES))
        runs = {"SeaweedFS": compared(folder, Seaweed)}
        with over_tls(folder / "authority") as secured:
            encrypted = compared(folder, secured)
        with serving_once(Seaweed(folder / "again")) as server:
            again, boto3_again, in_flight = sent_again(folder, server.url)
            saves = ten_saves(folder, server.url)
        if Tools(default_cache()).has(PROGRAM):
            runs["versitygw"] = compared(folder, Versity)
    return f"""\
{FILES} files of {FILE_BYTES // 2**20} MiB to {" and to ".join(runs)} on this machine, over plain HTTP and over TLS, and back to a folder; each figure is the median of {ROUNDS}
rounds in which all take turns. Processor seconds are the client's own processes' per GiB, imports apart; the server's are
said beside them. boto3 transfers file after file with eight threads each, as it does by default; the agent's SHA-256 of every
file is in its figures, and its restore writes only what it has verified.

{"".join(tables(server, theirs) for server, theirs in runs.items())}\
The goal was half of boto3's processor seconds, and 300 MiB. With SeaweedFS: {verdict(runs["SeaweedFS"], Goal(0.5, 0.5, 300))}

{tables("SeaweedFS over TLS", encrypted)}\
TLS costs everybody the same ciphers, so the goal is 0.65 of boto3's processor seconds for an upload, 0.85 for a restore, and 100
MiB. {verdict(encrypted, Goal(0.65, 0.85, 100))}

| figure | boto3 | agent | goal |
|---|---|---|---|
| upload killed at half: MiB sent again | {boto3_again:.0f} | {again:.0f} | ≤ {in_flight:.0f}, the parts in flight |
| ten saves with a frozen base: bytes sent / unique bytes | {saves.without:.2f} | {saves.ratio:.3f} | ≤ 1.05 |

The killed upload: one file of {FILE_BYTES // 2**20} MiB, SIGKILL when half of it has been acknowledged, the same command again; bytes are counted by a
proxy before the store. The saves: {FROZEN_BYTES // 2**20} MiB that never change and {TRAINED_BYTES // 2**20} MiB that always do, {SAVES} checkpoints by the agent's own process,
committed one after another; boto3's figure is what sending every file of every checkpoint comes to."""


def tables(server: str, runs: dict[str, list[Run]]) -> str:
    """What was measured with one server."""
    up, down = table(runs, UPLOADS, "boto3 upload_file"), table(runs, DOWNLOADS, "boto3 download_file")
    return f"{server}:\n\n{up}\n\n{down}\n\n"


def table(runs: dict[str, list[Run]], names: tuple[str, ...], reference: str) -> str:
    """Markdown: a line for each."""
    lines = [
        "| | GiB/s | CPU s/GiB | of boto3's | server's CPU s/GiB | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    base = median(run.cpu for run in runs[reference])
    for name in names:
        mine = runs[name]
        cpu = median(run.cpu for run in mine)
        speed = 1 / median(run.seconds for run in mine)
        server = median(run.server_cpu for run in mine)
        memory = max(run.memory for run in mine)
        lines.append(f"| {name} | {speed:.2f} | {cpu:.2f} | {cpu / base:.2f} | {server:.1f} | {memory:.0f} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Goal:
    """Shares of boto3's processor seconds, and MiB."""

    upload: float
    restore: float
    memory: float


def verdict(runs: dict[str, list[Run]], goal: Goal) -> str:
    """Whether the goals are met, and what stands in the way."""

    def cpu(name: str) -> float:
        return median(run.cpu for run in runs[name])

    up = cpu("agent, upload") / cpu("boto3 upload_file")
    down = cpu("agent, restore") / cpu("boto3 download_file")
    same = cpu("agent, restore") / cpu("boto3 download_file, then SHA-256")
    digest = cpu("SHA-256 of the files")
    memory = max(run.memory for name in ("agent, upload", "agent, restore") for run in runs[name])
    return (
        f"Memory: {'met' if memory <= goal.memory else 'missed'}, {memory:.0f} MiB. Upload: {'met' if up <= goal.upload else 'missed'}, {up:.2f}. "
        f"Restore: {'met' if down <= goal.restore else 'missed'}, {down:.2f} of a download that verifies nothing, {same:.2f} of one that is "
        f"verified afterwards. The digest alone takes {digest:.2f} s/GiB here, {digest / cpu('agent, upload'):.0%} of the upload and "
        f"{digest / cpu('agent, restore'):.0%} of the restore; what is left of both is the kernel's copying, and ciphers where there is TLS."
    )


@contextmanager
def over_tls(folder: Path) -> Iterator[Callable[[Path], StoreProcess]]:
    """SeaweedFS with a certificate, whose authority every client is told of."""
    authority = Authority(folder, datetime.now(UTC))
    certificate = authority.issue("store", names=["127.0.0.1"])
    os.environ["AWS_CA_BUNDLE"] = str(authority.file)
    try:
        yield lambda place: Seaweed(place, certificate)
    finally:
        del os.environ["AWS_CA_BUNDLE"]


@contextmanager
def serving_once(server: Server) -> Iterator[Server]:
    """A store of its own, of which nothing stays: several would fill the disk."""
    server.folder.mkdir()
    try:
        with serving(server):
            yield server
    finally:
        shutil.rmtree(server.folder)


def compared(folder: Path, kind: Callable[[Path], StoreProcess]) -> dict[str, list[Run]]:
    """All by turns, each round with a store that has nothing yet."""
    runs: dict[str, list[Run]] = {}
    for number in range(ROUNDS):
        with serving_once(kind(folder / "store")) as server:
            for name in (*UPLOADS, *DOWNLOADS, "SHA-256 of the files"):
                run = run_client(name, folder, server, number)
                told = f"{server.url}, round {number + 1}, {name}: {run.seconds:.1f} s, {run.cpu:.2f} CPU s"
                print(told, file=sys.stderr, flush=True)
                runs.setdefault(name, []).append(run)
    return runs


def run_client(name: str, folder: Path, server: Server, number: int) -> Run:
    """One transfer in a process of its own."""
    assert server.process is not None  # noqa: S101 - it has been started
    before = _cpu(server.process.pid)
    command = [sys.executable, "-m", "benchmarks.transfer_client", name, str(folder), server.url, BUCKET, str(number)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    said = json.loads(ended.stdout)
    return Run(said["seconds"], said["cpu"], _cpu(server.process.pid) - before, said["memory"])


def _cpu(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


@contextmanager
def counting(url: str) -> Iterator[tuple[Proxy, Callable[[], int]]]:
    """A proxy before the store, and how many bytes of files have been sent through it."""
    proxy = Proxy(url)
    sent: list[int] = []

    def count(request: Request) -> str:
        if request.method == "PUT" and request.key.endswith((".safetensors", ".bin")):
            sent.append(len(request.body))
        request.body = b""  # nobody needs it any more, and the log would keep it
        return "pass"

    proxy.rule = count
    try:
        yield proxy, lambda: sum(sent)
    finally:
        proxy.close()


def sent_again(folder: Path, url: str) -> tuple[float, float, float]:
    """MiB that go twice when an upload is killed at half: the agent's, boto3's; and what the agent had in flight."""
    from adapter_agent.storage import multipart

    found = []
    for name in ("agent, one file", "boto3, one file"):
        with counting(url) as (proxy, sent):
            command = [sys.executable, "-m", "benchmarks.transfer_client", name, str(folder), proxy.url, BUCKET, "0"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
            wait_until("half of the file is sent", lambda sent=sent: sent() >= FILE_BYTES // 2, 300)  # type: ignore[misc]
            process.kill()
            process.wait()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
            found.append((sent() - FILE_BYTES) / 2**20)
    part = multipart.part_bytes(FILE_BYTES)
    return found[0], found[1], multipart.PARALLEL_PARTS * part / 2**20


@dataclass(frozen=True)
class Saves:
    """What ten checkpoints cost."""

    ratio: float
    without: float
    """If every checkpoint had been sent whole."""


def ten_saves(folder: Path, url: str) -> Saves:
    """Bytes that the agent sends for checkpoints most of which never changes."""
    frozen = safetensors(os.urandom(FROZEN_BYTES))
    with counting(url) as (proxy, sent), ExitStack() as ending:
        node = Node(Folders(folder / "node"), f"s3://{BUCKET}/saves", proxy.url)
        code, said = end(node.start("restore"))
        if code:
            raise RuntimeError(said)
        agent = node.sync("--keep-last=2")
        ending.callback(stop, agent)
        store = Store.connect(node.uri, url)
        unique = len(frozen)
        for step in range(1, SAVES + 1):
            trained = os.urandom(TRAINED_BYTES)
            unique += TRAINED_BYTES
            write_checkpoint(node.output, step, values=trained, more={"model/frozen.safetensors": frozen})
            wait_until(f"checkpoint {step} is committed", lambda step=step: _newest(store) == step, 300)  # type: ignore[misc]
    whole = SAVES * (len(frozen) + TRAINED_BYTES)
    return Saves(sent() / unique, whole / unique)


def _newest(store: Store) -> int | None:
    held = index.read(store)
    return None if held is None or held.index.newest is None else held.index.newest.step
