"""A real S3 (SeaweedFS) for the session, a proxy that loses replies, and nodes with work folders of their own."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapter_agent import index
from adapter_agent.index import Claim
from adapter_agent.local import Folders
from adapter_agent.store import Store

KEY, SECRET, BUCKET = "agent-tests", "agent-tests-secret", "bucket"
GRPC_OFFSET = 10_000
SERVICES = ("master", "volume", "filer", "s3", "admin")


def free_ports(count: int) -> list[int]:
    """Ports that are free together with port + GRPC_OFFSET, which SeaweedFS uses for gRPC."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(12_000, 22_000), 500):
        try:
            for number in (port, port + GRPC_OFFSET):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            break
    return found


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("weed")
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    argv = [f"{sysconfig.get_path('scripts')}/weed", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for service, port in ports.items():
        argv += [f"-{service}.port={port}", f"-{service}.port.grpc={port + GRPC_OFFSET}"]
    argv += ["-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    argv += [f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock"]
    argv += ["-s3.autoCreateBucket=false", f"-bucket={BUCKET}"]
    env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{ports['s3']}"
    try:
        wait_until(
            lambda: answers(f"{url}/healthz") and answers(f"http://127.0.0.1:{ports['filer']}/buckets/{BUCKET}/")
        )
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    host, _, path = url.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", f"/{path}")
            with connection.getresponse() as reply:
                return reply.status == 200
        except (OSError, http.client.HTTPException):
            return False


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def output_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address that no other test uses."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}".replace("_", "-")


@pytest.fixture
def store(endpoint: str, output_uri: str) -> Store:
    return Store.connect(output_uri, endpoint)


@dataclass
class Request:
    method: str
    key: str
    conditional: bool
    body: bytes


class Proxy:
    """Stands before the store. `rule` says of each request: pass it on, lose the reply, accept it falsely, or hang."""

    def __init__(self, target: str) -> None:
        self.rule: Callable[[Request], str] = lambda _: "pass"
        self.log: list[Request] = []
        self.hanging = threading.Event()
        self._released = threading.Event()
        proxy, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                key = self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")
                request = Request(
                    self.command,
                    key,
                    bool({"if-match", "if-none-match"} & {name.lower() for name in self.headers}),
                    body,
                )
                proxy.log.append(request)
                verdict = proxy.rule(request)
                if verdict == "hang":
                    proxy.hanging.set()
                    proxy._released.wait(60)
                    self.close_connection = True
                    return
                if verdict == "accept":
                    self.send_response(200)
                    self.send_header("ETag", '"0123"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(host, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                reply = upstream.getresponse()
                content = reply.read()
                upstream.close()
                if verdict == "lose":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    yield proxy
    proxy.close()


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return len(header).to_bytes(8, "little") + header + values


def write_checkpoint(output: Path, step: int, node: int = 0, values: bytes | None = None) -> Path:
    """What the trainer of one node leaves for a step: complete or absent."""
    files = {f"random_states_{node}.safetensors": safetensors(f"rng {node} {step}".encode())}
    if node == 0:
        weights = f"weights {step}".encode() if values is None else values
        files |= {
            "unet/model.safetensors": safetensors(weights),
            "metrics.json": json.dumps({"loss": 1 / (step + 1)}).encode(),
            "versions.json": b'{"torch": "2"}',
        }
    sizes = {path: len(body) for path, body in files.items()}
    files[f"complete-rank-{node:05}.json"] = json.dumps({"step": step, "files": sizes}).encode()
    partial = output / f".checkpoint-{step}.tmp"
    for path, body in files.items():
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
        (partial / path).write_bytes(body)
    folder = output / f"checkpoint-{step}"
    partial.rename(folder)
    return folder


@pytest.fixture
def claimed() -> Callable[[Store, int], Claim]:
    def claim(store: Store, attempt: int) -> Claim:
        claim = Claim(attempt, f"nonce-{attempt}")
        index.claim(store, claim)
        return claim

    return claim


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
        return end(self.start("restore", *more))

    def sync(self, *more: str) -> subprocess.Popen[str]:
        self.address.unlink(missing_ok=True)
        process = self.start("sync", "--listen=127.0.0.1:0", *more)
        wait_until(lambda: self.address.exists() or process.poll() is not None)
        return process

    @property
    def address(self) -> Path:
        return self.folders.agent / "address.json"

    def get(self, page: str) -> str:
        host = json.loads(self.address.read_text())["url"].removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
            connection.request("GET", page)
            return connection.getresponse().read().decode()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error."""
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def stop(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    return end(process)


@pytest.fixture
def make_node(tmp_path: Path, endpoint: str, output_uri: str) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(node: int = 0, nodes: int = 1, attempt: int = 1, endpoint_url: str = endpoint, work: str = "") -> Node:
        folders = Folders(tmp_path / (work or f"node-{node}"))
        made.append(Node(folders, output_uri, endpoint_url, node, nodes, attempt))
        return made[-1]

    yield make
    for process in (process for node in made for process in node.processes):
        if process.poll() is None:
            process.kill()
        process.communicate()


@dataclass(frozen=True)
class Kit:
    """The functions above, which test files cannot import."""

    write_checkpoint = staticmethod(write_checkpoint)
    wait_until = staticmethod(wait_until)
    safetensors = staticmethod(safetensors)
    steps = staticmethod(committed_steps)
    end = staticmethod(end)
    stop = staticmethod(stop)
    bucket = BUCKET


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()
