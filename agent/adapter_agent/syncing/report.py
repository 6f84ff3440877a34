"""What the agent knows about a run: the trainer's progress completed with commits and upload errors, and metrics."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from pydantic import ValidationError

from adapter_api.checkpoint import IndexEntry
from adapter_api.layout import PROGRESS_FILE
from adapter_api.progress import MAX_PROGRESS_BYTES, CheckpointMark, Progress

_MAX_ERROR = 2048


class Report:
    """Written by the thread that uploads, read by those that answer requests."""

    def __init__(self, output: Path, uri: str, restore_warning: str | None = None) -> None:
        self._progress_file = output / PROGRESS_FILE
        self._uri = uri
        self._lock = threading.Lock()
        self._read = Progress(updated_at=datetime.now(UTC))
        self._checkpoint: CheckpointMark | None = None
        self._upload_error: str | None = None
        self._upload_began = 0.0
        self._upload_bytes = self._upload_sent = 0
        self._speed_of_last: float | None = None
        self._commit_seconds: float | None = None
        self._restore_warning = restore_warning and restore_warning[:_MAX_ERROR]
        self._registry = CollectorRegistry()
        name = "adapter_training"
        self._step = Gauge(f"{name}_step", "Optimizer steps done", registry=self._registry)
        self._loss = Gauge(f"{name}_loss", "Loss at the last report", registry=self._registry)
        self._speed = Gauge(f"{name}_images_per_second", "Images a second, all processes", registry=self._registry)
        self._bytes = Counter(f"{name}_uploaded_bytes", "Bytes sent to storage", registry=self._registry)
        self._commits = Counter(f"{name}_commits", "Checkpoints known to be committed", registry=self._registry)
        self._failures = Counter(f"{name}_upload_failures", "Uploads that failed", registry=self._registry)
        self._last_commit = Gauge(
            f"{name}_last_commit_timestamp_seconds", "Time of the newest commit", registry=self._registry
        )
        self._commit_interval = Gauge(
            f"{name}_commit_interval_seconds", "Time between the two newest commits; 0 before the second of this process",
            registry=self._registry,
        )  # fmt: skip
        self.upload_seconds: Histogram = Histogram(
            f"{name}_upload_seconds", "Time to upload this node's part of a checkpoint", registry=self._registry,
            buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600),
        )  # fmt: skip

    @property
    def bytes_per_second(self) -> float | None:
        """How fast the last whole checkpoint of this node went up."""
        return self._speed_of_last

    def uploading(self, count: int) -> None:
        """The upload of `count` bytes, this node's part of a checkpoint, begins."""
        with self._lock:
            self._upload_began, self._upload_bytes, self._upload_sent = time.monotonic(), count, 0

    def uploaded(self) -> None:
        """It is done."""
        with self._lock:
            self._speed_of_last = self._upload_bytes / max(time.monotonic() - self._upload_began, 1e-6)
            self._upload_bytes = self._upload_sent = 0

    def sent(self, count: int) -> None:
        """Bytes went to storage."""
        self._bytes.inc(count)
        with self._lock:
            self._upload_sent += count

    def committed(self, entry: IndexEntry, *, now: bool = True, seconds: float | None = None) -> None:
        """A checkpoint is committed: just now, `seconds` after its upload began, or found to be at the start."""
        mark = CheckpointMark(
            step=entry.step,
            uri=f"{self._uri}/{entry.folder}",
            committed_at=entry.committed_at,
            bytes=entry.bytes,
        )
        with self._lock:
            if now and self._checkpoint is not None and self._checkpoint.step < mark.step:
                self._commit_interval.set((mark.committed_at - self._checkpoint.committed_at).total_seconds())
            self._checkpoint = mark
            self._commit_seconds = seconds if seconds is not None else self._commit_seconds
        self._last_commit.set(entry.committed_at.timestamp())
        if now:
            self._commits.inc()

    def failed(self, error: str) -> None:
        """An upload did not succeed."""
        self._failures.inc()
        with self._lock:
            self._upload_error = error[:_MAX_ERROR]

    def recovered(self) -> None:
        """Uploads succeed again."""
        with self._lock:
            self._upload_error = None

    def progress(self) -> Progress:
        """The trainer's last readable progress, completed."""
        try:
            with self._progress_file.open("rb") as stream:
                read = Progress.model_validate_json(stream.read(MAX_PROGRESS_BYTES))
        except (OSError, ValidationError):
            read = None  # not written yet, or just being written: the one before it serves
        with self._lock:
            self._read = read or self._read
            return self._read.model_copy(
                update={
                    "checkpoint": self._checkpoint,
                    "upload_error": self._upload_error,
                    "commit_seconds": self._commit_seconds,
                    "upload_bytes_per_second": self._speed_of_last,
                    "pending_bytes": max(0, self._upload_bytes - self._upload_sent),
                    "restore_warning": self._restore_warning,
                }
            )

    def families(self) -> list[Metric]:
        """Everything that is told to Prometheus, by name."""
        return list(self._registry.collect())

    def metrics(self) -> bytes:
        """Everything in Prometheus' text format."""
        progress = self.progress()
        self._step.set(progress.step)
        if progress.loss is not None:
            self._loss.set(progress.loss)
        if progress.images_per_second is not None:
            self._speed.set(progress.images_per_second)
        return generate_latest(self._registry)
