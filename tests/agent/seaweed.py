"""A SeaweedFS server of the test session, on ports that nobody else has."""

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.agent.waiting import wait_until

KEY, SECRET, BUCKET = "agent-tests", "agent-tests-secret", "bucket"
GRPC_OFFSET = 10_000
SERVICES = ("master", "volume", "filer", "s3", "admin")


class Seaweed:
    """One server, which may be killed and started again on what it has stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        folder = self.folder
        argv = [
            f"{sysconfig.get_path('scripts')}/weed",
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
        ]
        for service, port in self.ports.items():
            argv += [f"-{service}.port={port}", f"-{service}.port.grpc={port + GRPC_OFFSET}"]
        argv += [
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        argv += [f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock"]
        argv += ["-s3.autoCreateBucket=false", f"-bucket={BUCKET}"]
        env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=folder)
        bucket = f"http://127.0.0.1:{self.ports['filer']}/buckets/{BUCKET}/"
        wait_until(lambda: answers(f"{self.url}/healthz") and answers(bucket))

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """What a crash of the server is to its clients."""
        self.kill()
        self.start()


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Runs the server inside the block; yields its endpoint URL."""
    server = Seaweed(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.kill()


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


def answers(url: str) -> bool:
    host, _, path = url.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", f"/{path}")
            with connection.getresponse() as reply:
                return reply.status == 200
        except (OSError, http.client.HTTPException):
            return False
