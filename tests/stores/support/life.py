"""The life of two checkpoints on one server, with a kill in it: what works there, or what is refused with which message."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter_agent.checkpoints import fetch, index, probe
from adapter_agent.errors import StorageError
from adapter_agent.local_files import Folders
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY
from tests.agent.support.node import Node, committed_steps, write_checkpoint

LARGE_BYTES = 11 * 2**20
"""Three parts, as the agent is started here."""
FROZEN = "unet/frozen.safetensors"
SECONDS = 60.0


@dataclass(frozen=True)
class Result:
    """What became of a run."""

    refused: str = ""
    """What `restore` said; empty where it began."""
    committed: tuple[int, ...] = ()
    restored: bool = False
    """Whether the next attempt had exactly the bytes that were committed."""
    copied: bool = False
    """Whether content that the store had was copied there instead of sent again."""
    checksums: str = ""
    """Who notices a body that is damaged on its way."""
    left: tuple[str, ...] = ()
    """Objects that nothing names, in the end."""

    @property
    def is_whole(self) -> bool:
        """Whether everything that a run needs works."""
        return not self.refused and self.committed == (10, 20) and self.restored and not self.left


class _SmallParts(Node):
    def argv(self, verb: str, *more: str) -> list[str]:
        argv = super().argv(verb, *more)
        return [sys.executable, "-m", "tests.agent.support.small_parts", *argv[3:]]


def live(work: Path, endpoint: str, uri: str, *, conditional: bool) -> Result:
    """Two checkpoints: the agent is killed while it sends the second, and goes on; then another attempt restores."""
    way = () if conditional else ("--no-conditional-writes",)
    node = _SmallParts(Folders(work / "first"), uri, endpoint)
    code, said = node.restore(*way)
    if code:
        return Result(refused=said)
    store = Store.connect(uri, endpoint, conditional=conditional)
    frozen = _safetensors(os.urandom(LARGE_BYTES))
    agent = node.sync(*way)
    write_checkpoint(node.output, 10, more={FROZEN: frozen})
    _await("checkpoint 10 is committed", lambda: committed_steps(store) == [10], node)
    sent = _sent(node)
    write_checkpoint(node.output, 20, values=os.urandom(LARGE_BYTES), more={FROZEN: frozen})
    time.sleep(0.3)
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    agent = node.sync(*way)
    _await("checkpoint 20 is committed", lambda: committed_steps(store) == [10, 20], node)
    copied = _sent(node) < 2 * LARGE_BYTES
    agent.send_signal(signal.SIGTERM)
    agent.communicate()
    following = _SmallParts(Folders(work / "second"), uri, endpoint, attempt=2)
    code, said = following.restore(*way)
    if code:
        return Result(refused=said, committed=tuple(committed_steps(store)))
    same = _equal(node.folders.checkpoint(20), following.folders.checkpoint(20))
    ignored = _findings(store).checksums_ignored
    checksums = "the agent, by MD5 and ETag" if ignored else "the store"
    return Result("", tuple(committed_steps(store)), same, copied and sent > 0, checksums, _unnamed(store))


def _findings(store: Store) -> probe.Findings:
    return probe.probe(store, 2)


def _sent(node: Node) -> float:
    lines = node.get("/metrics").splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("adapter_training_uploaded_bytes_total"))


def _await(what: str, is_so: Callable[[], bool], node: Node) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise StorageError(
                f"{what}: not within {SECONDS:.0f} s: {json.loads(node.get('/progress'))['uploadError']}"
            )
        time.sleep(0.1)


def _equal(first: Path, second: Path) -> bool:
    def contents(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return contents(first) == contents(second) != {}


def _unnamed(store: Store) -> tuple[str, ...]:
    """Objects that neither the index nor a manifest names, beyond what the newest attempt says of itself."""
    held = index.read(store)
    assert held is not None
    named = {INDEX_KEY}
    for entry in held.index.checkpoints:
        manifest = fetch.read_manifest(store, entry).manifest
        named |= {f"{entry.folder}/{name}" for name in ("manifest.json", "nodes/0.json")}
        named |= {f"{entry.folder}/{file.path}" for file in manifest.files}
    kept = ("logs/", "attempts/2.json", "attempts/2/", "attempts/1/index-", "attempts/1/intent")
    return tuple(facts.key for facts in store.list() if facts.key not in named and not facts.key.startswith(kept))


def _safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return len(header).to_bytes(8, "little") + header + values
