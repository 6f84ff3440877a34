"""One transfer in a process of its own: prints its seconds, processor seconds and peak memory as JSON."""

import hashlib
import json
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boto3.session import Session

from adapter_agent.storage import download, multipart, transfer
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store

FILES = 4
FILE_BYTES = 256 * 2**20


def main() -> None:
    """`transfer_client NAME FOLDER URL BUCKET ROUND`."""
    name, place, url, bucket, number = sys.argv[1:]
    run = prepared(name, Path(place), url, bucket, number)
    cpu, started = _cpu(), time.perf_counter()
    run()
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    memory = _peak_of_child or _peak("self")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "memory": memory}))


_peak_of_child = 0.0


def _peak(process: str) -> float:
    """Peak resident memory in MiB since it began its program; getrusage counts what it was before that, too."""
    lines = Path("/proc", process, "status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _watched(command: list[str], lines: list[str]) -> None:
    """Runs a program that reads lines, and looks at its memory meanwhile."""
    global _peak_of_child  # noqa: PLW0603 - one transfer a process
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None  # noqa: S101 - asked for
        process.stdin.write("\n".join(lines))
        process.stdin.close()
        while process.poll() is None:
            _peak_of_child = max(_peak_of_child, _peak(str(process.pid)))
            time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def prepared(name: str, folder: Path, url: str, bucket: str, number: str) -> Callable[[], None]:
    """What is measured, with everything imported and clients made."""
    files = [folder / f"file-{each}.bin" for each in range(FILES)]
    back = [folder / f"back-{each}.bin" for each in range(FILES)]
    keys = [f"{name.partition(' ')[0].strip(',')}-{number}/{path.name}" for path in files]
    stored = [f"boto3-{number}/{path.name}" for path in files]
    if name.startswith("boto3"):
        return _boto3(name, url, bucket, keys, files, back)
    if name.startswith("s5cmd"):
        pairs = zip(files, keys, strict=True) if "upload" in name else zip(stored, back, strict=True)
        lines = [f"cp {a} s3://{bucket}/{b}" if "upload" in name else f"cp s3://{bucket}/{a} {b}" for a, b in pairs]
        command = [f"{sysconfig.get_path('scripts')}/s5cmd", "--endpoint-url", url, "run"]
        return lambda: _watched(command, lines)
    if name.startswith("agent"):
        return _agent(name, Store.connect(f"s3://{bucket}", url), keys, stored, files, back)
    return lambda: void([sha256(path) for path in files])


def void(_: object) -> None:
    """Drops a result."""


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _boto3(
    name: str, url: str, bucket: str, keys: list[str], files: list[Path], back: list[Path]
) -> Callable[[], None]:
    client = Session().client("s3", endpoint_url=url, region_name="us-east-1")
    if name == "boto3, one file":
        return lambda: client.upload_file(str(files[0]), bucket, "boto3-one.bin")

    def run() -> None:
        for key, path, target in zip(keys, files, back, strict=True):
            if "upload" in name:
                client.upload_file(str(path), bucket, key)
            else:
                client.download_file(bucket, key, str(target))
        if "SHA-256" in name:
            void([sha256(target) for target in back])

    return run


def _agent(
    name: str, store: Store, keys: list[str], stored: list[str], files: list[Path], back: list[Path]
) -> Callable[[], None]:
    digests = {} if "restore" not in name else dict(zip(stored, map(sha256, files), strict=True))

    def send(key: str, path: Path) -> None:
        origin = multipart.Origin(path.with_suffix(".journal")) if "one" in name else transfer.NOTHING_KNOWN
        transfer.send(store, key, path, multipart.facts_of(path), {}, transfer.Condition(), origin=origin)

    def receive(key: str, target: Path) -> None:
        download.receive(store, key, target, Expected(FILE_BYTES, digests[key]), only_safe=False)

    def run() -> None:
        if "one" in name:
            send("agent-one.bin", files[0])
            return
        with ThreadPoolExecutor(FILES) as pool:
            work = pool.map(receive, stored, back) if "restore" in name else pool.map(send, keys, files)
            void(list(work))

    return run


if __name__ == "__main__":
    main()
