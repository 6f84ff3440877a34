"""A run of two nodes whose agents, or whose store, are killed at one write of the protocol; and what must hold afterwards.

The writes are not listed by hand: an undisturbed run counts them.
"""

import contextlib
import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adapter_agent import index, restore
from adapter_agent.errors import StorageError
from adapter_agent.local import Folders
from adapter_agent.store import Store
from adapter_api.checkpoint import folder_name
from tests.agent.faulty_proxy import Proxy, Request
from tests.agent.node import Node, safetensors, write_checkpoint
from tests.agent.seaweed import Seaweed

NODES, STEPS, LARGE_BYTES = 2, (10, 20), 11 * 2**20
WRITES = ("PUT", "POST", "DELETE")
PATIENCE = 90.0

Victim = Literal["agent", "both", "store"]
Recovery = Literal["restart", "attempt"]


@dataclass(frozen=True)
class Crash:
    """What is killed at which write, before or after the store has done it, and who goes on."""

    write: int
    after: bool
    victim: Victim
    recovery: Recovery

    def __str__(self) -> str:
        moment = "after" if self.after else "before"
        return f"{self.victim}-{moment}-write-{self.write}-then-{self.recovery}"


NOTHING = Crash(0, after=False, victim="agent", recovery="restart")


class SmallPartsNode(Node):
    """A node whose large files go up in parts."""

    def argv(self, verb: str, *more: str) -> list[str]:
        argv = super().argv(verb, *more)
        return [sys.executable, "-m", "tests.agent.small_parts", *argv[3:]]


@dataclass
class Run:
    """Two nodes of one attempt after the other, their stand-in for a trainer, and the crash."""

    folder: Path
    server: Seaweed
    store: Store
    crash: Crash
    writes: int = 0
    attempt: int = 1
    nodes: list[SmallPartsNode] = field(default_factory=list)
    stage: dict[int, str] = field(default_factory=dict)
    current: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    committed: dict[int, str] = field(default_factory=dict)
    """Every step that the index was ever seen to name, and the digest of its manifest."""
    wrote: dict[int, dict[int, bytes]] = field(default_factory=dict)
    """Attempt -> step -> weights that its trainer left."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _proxies: list[Proxy] = field(default_factory=list)
    _told: set[int] = field(default_factory=set)
    _over: bool = False

    def go(self) -> None:
        """From the first attempt to the commit of the last step, whatever is killed meanwhile."""
        self._proxies = [Proxy(self.server.url) for _ in range(NODES)]
        for node, proxy in enumerate(self._proxies):
            proxy.rule = self._rule(node)
            proxy.after = self._after(node)
        try:
            self._begin_attempt()
            end = time.monotonic() + PATIENCE
            while not self._turn():
                assert time.monotonic() < end, f"{self.crash}: {self.stage}, committed {self.committed}"
                time.sleep(0.03)
        finally:
            self._over = True
            self._kill(range(NODES))
            self._read_to_the_end()

    def close(self) -> None:
        """Ends what stood before the store."""
        for proxy in self._proxies:
            proxy.close()

    def _begin_attempt(self) -> None:
        work = self.folder / f"attempt-{self.attempt}"
        self.nodes = [
            SmallPartsNode(
                Folders(work / str(node)), self.store.uri, self._proxies[node].url, node, NODES, self.attempt
            )
            for node in range(NODES)
        ]
        self.stage = dict.fromkeys(range(NODES), "restore")
        for node in range(NODES):
            self._start(node)

    def _start(self, node: int) -> None:
        self.nodes[node].address.unlink(missing_ok=True)
        verb, more = self.stage[node], ("--listen=127.0.0.1:0", "--keep-last=1")
        self.current[node] = self.nodes[node].start(verb, *(more if verb == "sync" else ()))

    def _turn(self) -> bool:
        """Looks at every process once; returns whether the run is over."""
        self._observe()
        for node, process in list(self.current.items()):
            code = process.poll()
            if code is None:
                continue
            _, said = process.communicate()
            if code == 0 and self.stage[node] == "restore":
                self.stage[node] = "sync"
                self._start(node)
            elif code == 0:
                self.stage[node] = "ended"
                del self.current[node]
            elif code == -signal.SIGKILL and self.crash.recovery == "attempt":
                self._kill(range(NODES))
                self._read_to_the_end()
                self.attempt += 1
                self._begin_attempt()
                return False
            else:
                # Of the errors that a storage outage leads to, none may be final.
                assert code == -signal.SIGKILL or self.crash.victim == "store", f"{self.crash}: {said}"
                self._start(node)
        if set(self.stage.values()) == {"ended"}:
            return True
        if set(self.stage.values()) <= {"sync", "ended"}:
            self._train()
        return False

    def _train(self) -> None:
        """What the trainers do: the next step as soon as the one before is committed, and at the end they stop."""
        newest = max(self.committed, default=0)
        following = next((step for step in STEPS if step > newest), None)
        if following is None:
            for node, process in self.current.items():
                # Before it listens, the signal would end it like any process.
                if self.stage[node] == "sync" and process.pid not in self._told and self.nodes[node].address.exists():
                    self._told.add(process.pid)
                    process.send_signal(signal.SIGTERM)
            return
        for place in self.nodes:
            if not place.folders.checkpoint(following).exists():
                values = self._weights(following) if place.node == 0 else None
                write_checkpoint(place.output, following, place.node, values=values)

    def _weights(self, step: int) -> bytes:
        """Differs from attempt to attempt, so that a mixture would be seen."""
        seed = hashlib.sha256(f"{self.attempt} {step}".encode()).digest()
        values = seed * (LARGE_BYTES // len(seed))
        self.wrote.setdefault(self.attempt, {})[step] = values
        return values

    def _observe(self) -> None:
        with contextlib.suppress(StorageError):
            held = index.read(self.store)
            for entry in () if held is None else held.index.checkpoints:
                known = self.committed.setdefault(entry.step, entry.manifest_sha256)
                assert known == entry.manifest_sha256, f"{self.crash}: committed step {entry.step} changed"

    def _rule(self, node: int) -> Callable[[Request], str]:
        def rule(request: Request) -> str:
            if request.method not in WRITES or self._over:
                return "pass"
            with self._lock:
                self.writes += 1
                request.number = self.writes
            if request.number != self.crash.write:
                return "pass"
            if self.crash.after:
                return "lose"
            self._strike(node)
            return "lose_before"

        return rule

    def _after(self, node: int) -> Callable[[Request], None]:
        def after(request: Request) -> None:
            if request.number == self.crash.write and self.crash.after:
                self._strike(node)

        return after

    def _strike(self, node: int) -> None:
        if self.crash.victim == "store":
            self.server.restart()
        else:
            self._kill(range(NODES) if self.crash.victim == "both" else [node])

    def _read_to_the_end(self) -> None:
        """Closes the pipes of ended processes. Only the thread that starts them does; others merely kill."""
        for process in self.current.values():
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()

    def _kill(self, nodes: "range | list[int]") -> None:
        for node in nodes:
            process = self.current.get(node)
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def check(self) -> Iterator[str]:
        """Every violation of what must hold, after a following attempt has swept."""
        newest = max(self.committed)
        if newest != STEPS[-1]:
            yield f"the last step was not committed: {self.committed}"
        following = Node(Folders(self.folder / "following"), self.store.uri, self.server.url, attempt=self.attempt + 1)
        code, said = following.restore()
        if code:
            yield f"lost-committed: {said}"
            return
        folder = following.folders.checkpoint(newest)
        manifest = restore.read_manifest(self.store, restore.committed_entry(self.store, newest)).manifest
        weights = (folder / "unet" / "model.safetensors").read_bytes()
        if weights != safetensors(self.wrote[manifest.attempt][newest]):
            yield f"resumed-corrupt: the weights are not those of attempt {manifest.attempt}"
        if {entry.node for entry in manifest.files} != set(range(NODES)):
            yield f"resumed-corrupt: files of nodes {sorted({entry.node for entry in manifest.files})} only"
        yield from self._leaks()

    def _leaks(self) -> Iterator[str]:
        held = index.read(self.store)
        assert held is not None
        expected = {"checkpoints.json", f"attempts/{self.attempt + 1}.json"}
        for entry in held.index.checkpoints:
            manifest = restore.read_manifest(self.store, entry).manifest
            folder = folder_name(entry.step)
            expected |= {f"{folder}/manifest.json", *(f"{folder}/{file.path}" for file in manifest.files)}
            expected |= {f"{folder}/nodes/{node}.json" for node in range(NODES)}
        for facts in self.store.list():
            if facts.key not in expected and not facts.key.startswith("logs/"):
                yield f"leaked: {facts.key}"
        answer = self.store.client.list_multipart_uploads(Bucket=self.store.bucket, Prefix=self.store.full_key(""))
        yield from (f"leaked upload: {upload['Key']}" for upload in answer.get("Uploads", ()))


@dataclass
class Fencing(Run):
    """Attempts that are stopped in the middle of a write instead of killed, and go on when a newer one has begun."""

    pauses: tuple[tuple[int, float], ...] = ()
    """Write at which an attempt is stopped -> seconds until it goes on, with that write still in flight."""
    zombies: list[subprocess.Popen[str]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def _rule(self, node: int) -> Callable[[Request], str]:
        lengths = dict(self.pauses)

        def rule(request: Request) -> str:
            if request.method not in WRITES or self._over:
                return "pass"
            with self._lock:
                self.writes += 1
                seconds = lengths.get(self.writes)
                if seconds is None or self._stopped.is_set():
                    return "pass"
                stopped = [process for process in self.current.values() if process.poll() is None]
                for process in stopped:
                    process.send_signal(signal.SIGSTOP)
                self._stopped.set()
            time.sleep(seconds)
            for process in stopped:
                process.send_signal(signal.SIGCONT)
            return "pass"

        return rule

    def _turn(self) -> bool:
        if self._stopped.is_set():
            self.zombies += self.current.values()
            self.attempt += 1
            self._begin_attempt()
            self._stopped.clear()
        return super()._turn()

    def zombie_ends(self) -> list[int]:
        """Exit codes of the older attempts' processes, once they have seen that they are fenced, or have been told."""
        ends = []
        for process in self.zombies:
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            ends.append(process.returncode)
        return ends
