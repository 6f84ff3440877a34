"""One node: what its trainer leaves in the work folder, and the agent's commands."""

import contextlib
import hashlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from adapter_agent import options
from adapter_agent.checkpoints import index, marks
from adapter_agent.checkpoints.commit import commit, receipts_of
from adapter_agent.checkpoints.index import Claim
from adapter_agent.checkpoints.upload import upload_checkpoint
from adapter_agent.commands import restore
from adapter_agent.errors import StorageError
from adapter_agent.local_files import Folders
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import IndexEntry
from tests.support.waiting import wait_until


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return len(header).to_bytes(8, "little") + header + values


def write_checkpoint(
    output: Path, step: int, node: int = 0, values: bytes | None = None, more: Mapping[str, bytes] | None = None,
    pass_id: str = "first",
) -> Path:  # fmt: skip
    """What the trainer of one node leaves for a step: complete or absent."""
    files = {f"random_states_{node}.safetensors": safetensors(f"rng {node} {step}".encode())}
    if node == 0:
        weights = f"weights {step}".encode() if values is None else values
        files |= {
            "unet/model.safetensors": safetensors(weights),
            "metrics.json": json.dumps({"loss": 1 / (step + 1)}).encode(),
            "versions.json": b'{"torch": "2"}',
        }
    files |= more or {}
    sizes = {path: len(body) for path, body in files.items()}
    files[f"complete-rank-{node:05}.json"] = json.dumps({"step": step, "pass": pass_id, "files": sizes}).encode()
    partial = output / f".checkpoint-{step}.tmp"
    for path, body in files.items():
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
        (partial / path).write_bytes(body)
    folder = output / f"checkpoint-{step}"
    if folder.exists():
        folder.rename(output / f".removed-{step}-{pass_id}")
    partial.rename(folder)
    return folder


def upload_and_commit(store: Store, claim: Claim, step: int, folder: Path) -> IndexEntry:
    """What the agents of a run with one node do for one checkpoint."""
    upload_checkpoint(store, claim, 0, step, folder)
    receipts = receipts_of(store, claim, step, nodes=1)
    assert receipts is not None
    return commit(store, claim, receipts, folder, world_size=1, now=datetime.now(UTC))


def put_marked(store: Store, claim: Claim, key: str, body: bytes = b"x") -> None:
    """An object as an attempt writes it."""
    store.put_if_absent(key, body, marks.metadata(claim, hashlib.sha256(body).hexdigest()))


def committed_steps(store: Store) -> list[int]:
    held = index.read(store)
    return [] if held is None else [entry.step for entry in held.index.checkpoints]


@dataclass
class Node:
    """One node's work folder, and the agent's commands as real processes."""

    folders: Folders
    uri: str
    endpoint: str
    node: int = 0
    nodes: int = 1
    attempt: int = 1
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        self.folders.output.mkdir(parents=True, exist_ok=True)
        return self.folders.output

    def argv(self, verb: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "adapter_agent", verb, f"--attempt={self.attempt}", f"--node={self.node}",
            f"--nodes={self.nodes}", f"--world-size={self.nodes}", f"--work={self.folders.work}",
            f"--output-uri={self.uri}", f"--output-endpoint-url={self.endpoint}", *more,
        ]  # fmt: skip

    def start(self, verb: str, *more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(verb, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.processes.append(process)
        return process

    def restore(self, *more: str) -> tuple[int, str]:
        """The command within this process, which spares a second: its exit code and message."""
        chosen = options.parse(self.argv("restore", *more)[3:])
        assert isinstance(chosen, options.RestoreOptions)
        try:
            restore.prepare(chosen)
        except StorageError as error:
            return error.exit_code, str(error)
        return 0, ""

    def sync(self, *more: str) -> subprocess.Popen[str]:
        self.address.unlink(missing_ok=True)
        process = self.start("sync", "--listen=127.0.0.1:0", *more)
        wait_until("the agent serves or has ended", lambda: self.address.exists() or process.poll() is not None)
        return process

    @property
    def address(self) -> Path:
        return self.folders.agent / "address.json"

    def get(self, page: str) -> str:
        host = json.loads(self.address.read_text())["url"].removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            connection.request("GET", page)
            return connection.getresponse().read().decode()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def stop(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    return end(process)


MakeNode = Callable[..., Node]
"""Makes a node of the test's output: node, nodes, attempt, endpoint_url, work."""
Claims = Callable[[Store, int], Claim]
"""Claims an output for an attempt."""
