"""Uploads what is beside the checkpoints: picture grids, created once, and logs, which grow."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from adapter_agent import local_files
from adapter_agent.errors import PreconditionFailed
from adapter_agent.storage.multipart import OnBytes
from adapter_agent.storage.store import Store
from adapter_agent.storage.transfer import Condition, replace_whatever, send
from adapter_api.layout import HISTORY_FILE, LOGS_FOLDER, SAMPLES_FOLDER

SHORT_LOG_BYTES = 2**20
"""Up to here a log is sent after each commit."""
LOG_GROWTH = 1.25
"""By which a longer one has to grow: what is sent of it altogether is then at most five times its length."""

_Version = tuple[int, int]
"""Size and modification time (ns) of a file."""


class Extras:
    """Remembers what it has sent, so that every file goes once, or once after each change."""

    def __init__(self, store: Store, output: Path, attempt: int, node: int, on_bytes: OnBytes) -> None:
        self._store = store
        self._output = output
        self._attempt = attempt
        self._logs = f"{LOGS_FOLDER}/attempt-{attempt}/node-{node}"
        self._on_bytes = on_bytes
        self._seen: dict[Path, _Version] = {}
        self._sent: dict[Path, _Version] = {}

    def send_samples(self, *, settled: bool = False) -> None:
        """Sends new pictures that have not changed since the last look; with `settled`, also those just written."""
        for path in sorted((self._output / SAMPLES_FOLDER).glob("*.png")):
            version = _version(path)
            unchanged = self._seen.get(path) == version
            self._seen[path] = version
            if path not in self._sent and (unchanged or settled):
                self._create_sample(path)
                self._sent[path] = version

    def _create_sample(self, path: Path) -> None:
        facts = local_files.facts_of(path)
        name = PurePosixPath(path.name)
        own = f"{SAMPLES_FOLDER}/{name.stem}-attempt-{self._attempt}{name.suffix}"
        for key in (f"{SAMPLES_FOLDER}/{name}", own) if self._store.conditional else (own,):
            try:
                send(self._store, key, path, facts, {"sha256": facts.sha256}, Condition(), self._on_bytes)
            except PreconditionFailed:
                found = self._store.head(key)
                if found is not None and found.metadata.get("sha256") != facts.sha256:
                    continue  # another attempt's picture of the same step stays
            return

    def send_logs(self, *, last: bool = True) -> None:
        """Sends the logs as they are now, under a name that no other attempt or node writes.

        Each is sent whole, since objects do not grow: unless it is the `last` time, a long one only once it has grown by so
        much that all sendings together stay in proportion to it.
        """
        for path, name in self._log_files():
            version = _version(path)
            before = self._sent.get(path)
            if before == version or not (last or before is None or _has_grown(before[0], version[0])):
                continue
            size = replace_whatever(self._store, f"{self._logs}/{name}", path)
            self._on_bytes(size)
            self._sent[path] = version

    def _log_files(self) -> Iterator[tuple[Path, str]]:
        metrics, logs = self._output / HISTORY_FILE, self._output / LOGS_FOLDER
        if metrics.is_file():
            yield metrics, HISTORY_FILE
        if logs.is_dir():
            yield from ((logs / name, name) for name in local_files.files_below(logs))


def _has_grown(before: int, size: int) -> bool:
    return size <= SHORT_LOG_BYTES or not before <= size < before * LOG_GROWTH


def _version(path: Path) -> _Version:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
