"""A run of two nodes in which one process, or the store, is killed at one step; and what must hold afterwards.

Steps are not listed by hand: an undisturbed run counts every request that the agents make, and every change that agents
and trainers make on disk. It has an attempt that is lost while it uploads, so that the one after it restores and sweeps,
and more checkpoints than are kept, so that retention removes one.
"""

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal, Protocol

from adapter_agent.checkpoints import fetch, index
from adapter_agent.errors import StorageError
from adapter_agent.local_files import Folders
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import folder_key, receipt_name
from adapter_trainer.checkpoint import checkpoint_folder
from tests.agent.support import crash_processes
from tests.agent.support.crash_processes import Pass, shard_name
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import Node, safetensors

NODES, STEPS, LOST, LARGE_BYTES = 2, (10, 20, 30), 20, 11 * 2**20
WRITES = ("PUT", "POST", "DELETE")
PATIENCE = 300.0

Victim = Literal["agent", "trainer", "both", "agents", "store"]
"""Of the node whose step it is: its agent, its trainer, both; or every node's agent; or the store."""
Recovery = Literal["restart", "attempt"]


class Server(Protocol):
    """A store that can be killed and started again on what it has stored."""

    url: str

    def restart(self) -> None: ...


@dataclass(frozen=True)
class Crash:
    """Who is killed at which step, before or after the store has done it, and who goes on."""

    place: str
    """`requests`, or the process whose changes on disk are counted: <attempt>-<restore|sync|trainer>-<node>."""
    step: int
    victim: Victim
    recovery: Recovery
    after: bool = False
    """Of a request: whether the store has done it, and only the reply is lost."""

    def __str__(self) -> str:
        moment = "after" if self.after else "before"
        return f"{self.victim}-{moment}-{self.place}-{self.step}-then-{self.recovery}"


NOTHING = Crash("nowhere", 0, victim="agent", recovery="restart")


@dataclass
class Run:
    """Two nodes of one attempt after the other, their trainers, and the crash."""

    folder: Path
    server: Server
    store: Store
    """Where everything is; whether it is conditional says which way the agents write."""
    crash: Crash
    uneven: bool = False
    """Whether node 1 saves a step only when node 0 has sent its part of it."""
    requests: int = 0
    writes: int = 0
    attempt: int = 1
    nodes: list[Node] = field(default_factory=list)
    stage: dict[int, str] = field(default_factory=dict)
    current: dict[int, ForkServerProcess] = field(default_factory=dict)
    trainers: dict[int, ForkServerProcess] = field(default_factory=dict)
    passes: int = 0
    """Starts of all trainers in this attempt."""
    committed: dict[int, str] = field(default_factory=dict)
    """Every step that the index was ever seen to name, and the digest of its manifest."""
    _struck: bool = False
    _lost: bool = False
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
                time.sleep(0.02)
        finally:
            self._over = True
            self._kill_gang()

    def close(self) -> None:
        """Ends what stood before the store."""
        for proxy in self._proxies:
            proxy.close()

    @property
    def _way(self) -> tuple[str, ...]:
        return () if self.store.conditional else ("--no-conditional-writes",)

    def local_steps(self) -> dict[str, int]:
        """How many changes each process made on disk."""
        return {file.name: file.stat().st_size for file in sorted((self.folder / "counters").iterdir())}

    def _begin_attempt(self) -> None:
        work = self.folder / f"attempt-{self.attempt}"
        self.nodes = [
            Node(Folders(work / str(node)), self.store.uri, self._proxies[node].url, node, NODES, self.attempt)
            for node in range(NODES)
        ]
        self.stage = dict.fromkeys(range(NODES), "restore")
        for folder in ("counters", "logs", f"allowed-{self.attempt}"):
            (self.folder / folder).mkdir(exist_ok=True)
        for node in range(NODES):
            self._start_agent(node)

    def _start_agent(self, node: int) -> None:
        place = self.nodes[node]
        place.address.unlink(missing_ok=True)
        place.folders.work.mkdir(parents=True, exist_ok=True)
        verb = self.stage[node]
        more = ("--listen=127.0.0.1:0", "--keep-last=1") if verb == "sync" else ()
        name = f"{self.attempt}-{verb}-{node}"
        self.current[node] = crash_processes.start(
            crash_processes.agent, place.argv(verb, *more, *self._way)[3:], self.folder / "logs" / name, place.folders.work,
            self.folder / "counters" / name, self._fatal(name),
        )  # fmt: skip

    def _start_trainers(self) -> None:
        """All of them, as torchrun does when each node has come to the rendezvous: from the newest step that they share."""
        self.passes += 1
        held = [checkpoint_folder.complete_steps(node.output) for node in self.nodes]
        begun = Pass(
            f"{self.attempt}-{self.passes}",
            checkpoint_folder.newest_of(held) or 0,
            {step: weights_of(self.attempt, self.passes, step) for step in STEPS},
        )
        for node in range(NODES):
            name = f"{self.attempt}-trainer-{node}"
            self.trainers[node] = crash_processes.start(
                crash_processes.trainer, self.nodes[node].output, node, begun,
                self.folder / f"allowed-{self.attempt}" / str(node), self.folder / "counters" / name, self._fatal(name),
            )  # fmt: skip

    def _restart_trainers(self, node: int) -> None:
        """A process that crashes takes the others with it, and all start anew in place."""
        code = self.trainers[node].exitcode
        assert code == -signal.SIGKILL, f"{self.crash}: the trainer of node {node} ended with {code}"
        send(signal.SIGKILL, [process for process in self.trainers.values() if process.exitcode is None])
        for process in self.trainers.values():
            process.join()
        self._start_trainers()

    def _fatal(self, name: str) -> int:
        """The change at which the process that is started now ends; the one that follows it has none."""
        if self.crash.place != name or self._struck:
            return 0
        self._struck = True
        return self.crash.step

    def _turn(self) -> bool:
        """Looks at every process once; returns whether the run is over."""
        self._observe()
        for process, start in [
            *self._ended(self.current, self._go_on),
            *self._ended(self.trainers, self._restart_trainers),
        ][:1]:
            if process.exitcode == -signal.SIGKILL and self.crash.recovery == "attempt":
                self._next_attempt()
                return False
            start()
        if set(self.stage.values()) == {"ended"}:
            return True
        if set(self.stage.values()) <= {"sync", "ended"}:
            self._train()
        return False

    def _ended(
        self, processes: dict[int, ForkServerProcess], then: Callable[[int], None]
    ) -> Iterator[tuple[ForkServerProcess, Callable[[], None]]]:
        for node, process in list(processes.items()):
            if process.exitcode is not None:
                yield process, lambda node=node: then(node)  # type: ignore[misc]

    def _go_on(self, node: int) -> None:
        code = self.current[node].exitcode
        if code == 0 and self.stage[node] == "restore":
            self.stage[node] = "sync"
            if set(self.stage.values()) == {"sync"}:
                self._start_trainers()
        elif code == 0:
            self.stage[node] = "ended"
            del self.current[node]
            return
        else:
            # Of the errors that a storage outage leads to, none may be final.
            assert code == -signal.SIGKILL or self.crash.victim == "store", f"{self.crash}: {code}\n{self._logs()}"
        self._start_agent(node)

    def _logs(self) -> str:
        return "\n".join(file.read_text()[-2000:] for file in sorted((self.folder / "logs").iterdir()))

    def _next_attempt(self) -> None:
        self._kill_gang()
        self.attempt += 1
        self.passes = 0
        self._begin_attempt()

    def _train(self) -> None:
        """Lets trainers save the next step as soon as the one before is committed; at the end they stop."""
        newest = max(self.committed, default=0)
        following = next((step for step in STEPS if step > newest), None)
        if following is None:
            for node, process in self.current.items():
                # Before it listens, the signal would end it like any process.
                if self.stage[node] == "sync" and process.pid not in self._told and self.nodes[node].address.exists():
                    assert process.pid is not None
                    self._told.add(process.pid)
                    os.kill(process.pid, signal.SIGTERM)
            return
        losing = following == LOST and not self._lost
        for node in range(1 if losing or (self.uneven and not self._has_sent(following)) else NODES):
            allowed = self.folder / f"allowed-{self.attempt}" / str(node)
            allowed.mkdir(exist_ok=True)
            (allowed / str(following)).touch()
        if losing and self._has_sent(following):
            self._lost = True
            self._next_attempt()

    def _has_sent(self, step: int) -> bool:
        with contextlib.suppress(StorageError):
            folder = folder_key(self.attempt, step, scoped=not self.store.conditional)
            return self.store.head(f"{folder}/{receipt_name(0)}") is not None
        return False

    def _observe(self) -> None:
        with contextlib.suppress(StorageError):
            held = index.read(self.store)
            if held is None or (held.written is not None and held.written.newest != held.written.valid):
                return  # without conditions, what an attempt commits while a newer one begins may not count
            for entry in held.index.checkpoints:
                known = self.committed.setdefault(entry.step, entry.manifest_sha256)
                assert known == entry.manifest_sha256, f"{self.crash}: committed step {entry.step} changed"

    def _rule(self, node: int) -> Callable[[Request], str]:
        def rule(request: Request) -> str:
            if self._over:
                return "pass"
            with self._lock:
                self.requests += 1
                request.number = self.requests
            if self.crash.place != "requests" or request.number != self.crash.step:
                return "pass"
            if self.crash.after:
                return "lose"
            self._strike(node)
            return "lose_before"

        return rule

    def _after(self, node: int) -> Callable[[Request], None]:
        def after(request: Request) -> None:
            if self.crash.place == "requests" and request.number == self.crash.step and self.crash.after:
                self._strike(node)

        return after

    def _strike(self, node: int) -> None:
        victim = self.crash.victim
        if victim == "store":
            self.server.restart()
        if victim in {"agent", "both"}:
            send(signal.SIGKILL, [self.current.get(node)])
        if victim in {"trainer", "both"}:
            send(signal.SIGKILL, [self.trainers.get(node)])
        if victim == "agents":
            send(signal.SIGKILL, list(self.current.values()))

    def _kill_gang(self) -> None:
        gang = [process for process in (*self.current.values(), *self.trainers.values()) if process.exitcode is None]
        send(signal.SIGKILL, gang)
        for process in gang:
            process.join()
        self.current, self.trainers = {}, {}

    def check(self) -> Iterator[str]:
        """Every violation of what must hold, after a following attempt has swept."""
        newest = max(self.committed)
        if newest != STEPS[-1]:
            yield f"lost-committed: the last step was not committed: {self.committed}"
        following = Node(Folders(self.folder / "following"), self.store.uri, self.server.url, attempt=self.attempt + 1)
        code, said = following.restore(*self._way)
        if code:
            yield f"lost-committed: {said}"
            return
        folder = following.folders.checkpoint(newest)
        manifest = fetch.read_manifest(self.store, fetch.committed_entry(self.store, newest)).manifest
        shards = tuple((folder / shard_name(node, NODES)).read_bytes() for node in range(NODES))
        attempt, passed = map(int, manifest.pass_id.split("-"))
        if attempt != manifest.attempt or shards != tuple(map(safetensors, weights_of(attempt, passed, newest))):
            yield f"resumed-corrupt: the shards are not those of pass {passed} of attempt {manifest.attempt}"
        if {entry.node for entry in manifest.files} != set(range(NODES)):
            yield f"resumed-corrupt: files of nodes {sorted({entry.node for entry in manifest.files})} only"
        yield from self._leaks()

    def _leaks(self) -> Iterator[str]:
        held = index.read(self.store)
        assert held is not None
        following = self.attempt + 1
        expected = {f"attempts/{following}.json"}
        if held.written is None:
            expected.add("checkpoints.json")
        else:
            expected |= {
                f"attempts/{following}/{name}"
                for name in ("intent", f"index-{held.written.numbers[following][-1]}.json")
            }
        for entry in held.index.checkpoints:
            manifest = fetch.read_manifest(self.store, entry).manifest
            expected |= {f"{entry.folder}/manifest.json", *(f"{entry.folder}/{file.path}" for file in manifest.files)}
            expected |= {f"{entry.folder}/nodes/{node}.json" for node in range(NODES)}
        found = {facts.key for facts in self.store.list() if not facts.key.startswith("logs/")}
        yield from (f"leaked: {key}" for key in sorted(found - expected))
        yield from (f"lost-committed: {key} is gone" for key in sorted(expected - found))
        client, bucket = self.store.client, self.store.bucket
        for upload in client.list_multipart_uploads(Bucket=bucket, Prefix=self.store.full_key("")).get("Uploads", ()):
            # Whoever is killed between its begin and the record of it leaves one that holds nothing.
            if client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts"):
                yield f"leaked upload: {upload['Key']}"


def weights_of(attempt: int, passed: int, step: int) -> tuple[bytes, ...]:
    """The shard of each node, one of them large; they differ from pass to pass, so that a mixture would be seen."""
    seeds = [hashlib.sha256(f"{attempt} {passed} {step} {node}".encode()).digest() for node in range(NODES)]
    return tuple(seed * ((LARGE_BYTES if node == 0 else 1024) // len(seed)) for node, seed in enumerate(seeds))


def send(number: int, processes: Iterable[ForkServerProcess | None]) -> None:
    """A signal for those that run. Only the thread that started them looks at how they ended."""
    for process in processes:
        if process is not None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
