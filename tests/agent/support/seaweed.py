"""A SeaweedFS server of the test session, on ports that nobody else has."""

import contextlib
import http.client
import os
import ssl
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.agent.support.store_process import StoreProcess, serving
from tests.cluster.certificates import Certificate
from tests.support.ports import free_ports

KEY, SECRET, BUCKET = "agent-tests", "agent-tests-secret", "bucket"
GRPC_OFFSET = 10_000
"""SeaweedFS derives some gRPC ports from HTTP ports by this sum, whatever its flags say."""
SERVICES = ("master", "volume", "filer", "s3", "admin")


class Seaweed(StoreProcess):
    """One server."""

    def __init__(self, folder: Path, certificate: Certificate | None = None) -> None:
        super().__init__(folder, certificate)
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES), GRPC_OFFSET), strict=True))
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.ports['s3']}"

    def launch(self) -> tuple[list[str], dict[str, str]]:
        """It makes the bucket itself."""
        folder = self.folder
        argv = [
            f"{sysconfig.get_path('scripts')}/weed",
            "-logtostderr=true",
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
        if self.certificate is not None:
            argv += [f"-s3.cert.file={self.certificate.certificate}", f"-s3.key.file={self.certificate.key}"]
        return argv, {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def kill(self) -> None:
        """SIGKILL; what it keeps outside its folder goes with it."""
        super().kill()
        for service, port in self.ports.items():
            Path(f"/tmp/seaweedfs-{service}-grpc-{port + GRPC_OFFSET}.sock").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether it answers, and the bucket is there."""
        bucket = f"http://127.0.0.1:{self.ports['filer']}/buckets/{BUCKET}/"
        return answers(f"{self.url}/healthz") and answers(bucket)


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Runs a server inside the block; yields its endpoint URL."""
    with serving(Seaweed(folder)) as server:
        yield server.url


def answers(url: str) -> bool:
    scheme, _, place = url.partition("://")
    host, _, path = place.partition("/")
    made = (
        http.client.HTTPSConnection(host, timeout=5, context=ssl._create_unverified_context())
        if scheme == "https"
        else http.client.HTTPConnection(host, timeout=5)
    )
    with contextlib.closing(made) as connection:
        try:
            connection.request("GET", f"/{path}")
            with connection.getresponse() as reply:
                return reply.status == 200
        except (OSError, http.client.HTTPException):
            return False
