"""Looks at the trainer's output again and again: uploads what is new, commits it, and removes what it replaces."""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from adapter_agent import local_files
from adapter_agent.backoff import delays
from adapter_agent.checkpoints import index, retention, seals
from adapter_agent.checkpoints.claims import Start
from adapter_agent.checkpoints.commit import commit, receipts_of
from adapter_agent.checkpoints.fetch import read_manifest
from adapter_agent.checkpoints.upload import upload_checkpoint
from adapter_agent.errors import ContentConflict, Damaged, EndpointUnreachable, Fenced, StorageError
from adapter_agent.options import SyncOptions
from adapter_agent.staging.encodings import Exchange
from adapter_agent.storage import open_uploads
from adapter_agent.storage.multipart import COPY_BYTES
from adapter_agent.storage.store import Store
from adapter_agent.syncing import stopping
from adapter_agent.syncing.extras import Extras
from adapter_agent.syncing.report import Report
from adapter_api.checkpoint import CheckpointIndex, IndexEntry

OWNER_SECONDS = 20.0
"""Seconds between two checks that the output still belongs to this attempt."""
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.2, 3.0
"""Seconds between two requests for what the other nodes have done."""

log = logging.getLogger(__name__)


class Pipeline:
    """The state of one node's uploads. One thread uses it; any thread may call `describe_rest`."""

    def __init__(
        self, store: Store, begun: Start, options: SyncOptions, report: Report, extras: Extras,
        now: Callable[[], datetime], encodings: Exchange | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._claim = begun.claim
        self._options = options
        self._folders = options.folders
        self._report = report
        self._extras = extras
        self._now = now
        self._encodings = encodings
        self._begun = False
        self._settled_step = -1 if begun.source is None else begun.source.step
        """Step up to which nothing is to be committed any more."""
        self._uploaded: dict[int, str] = {}
        """Step -> the pass of which this node has uploaded it."""
        self._upload_began: dict[int, float] = {}
        self._expire: bool = False
        source = begun.source
        self._in_use = {source.step} if source is not None and source.uri == store.uri else set()
        """The checkpoint that this attempt started from, which a node needs to restore again."""
        self._deletion_due: datetime | None = None
        self._warned = False
        self._known: dict[str, str] = {}
        """Content of the newest committed checkpoint: SHA-256 -> key."""
        self._looks = delays(FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS)
        self._next_look = 0.0
        self._owner_seen = time.monotonic()

    def turn(self, *, last: bool) -> bool:
        """Does what can be done now. With `last`, returns whether this node has nothing left to do.

        Raises:
            Fenced: A newer attempt owns the output.
            StorageError, OSError: Something failed; a later turn tries it again.
        """
        if not self._begun:
            self._learn_commits()
            self._begun = True
        if time.monotonic() >= self._owner_seen + OWNER_SECONDS:
            # A node that was cut off, and replaced, would train in vain until its next save, wait for receipts for ever,
            # or try again for ever to complete an upload that its successor has ended.
            index.read_owned(self._store, self._claim)
            self._owner_seen = time.monotonic()
        problem = self._upload_pending()
        if self._uploaded and (last or time.monotonic() >= self._next_look):
            self._next_look = time.monotonic() + next(self._looks)
            if self._options.node == 0:
                self._commit_uploaded()
            else:
                self._learn_commits()
        untidy = self._tidy()
        self._extras.send_samples(settled=last)
        if not last and self._encodings is not None:
            self._encodings.send_next()
            if self._options.nodes > 1 and self._report.progress().phase == "encoding":
                self._encodings.fetch_some()
        if problem is not None or (untidy is not None and not last):
            raise problem or untidy  # type: ignore[misc]
        if not last or self._to_upload() or (self._options.node == 0 and self._uploaded):
            return False
        if untidy is not None:
            log.warning("everything is committed; what it replaces stays: %s", untidy)
        self._extras.send_logs()
        self._send_encodings()
        return True

    def _send_encodings(self) -> None:
        """Uploads the remaining encodings. That another run must compute some again is no reason to wait, or to fail."""
        if self._encodings is None or stopping.seconds_left(self._folders.agent) is not None:
            return
        try:
            while self._encodings.send_next(look=True):
                pass
        except StorageError as error:
            log.warning("some encodings are not in object storage and would have to be encoded again: %s", error)

    def describe_rest(self) -> str:
        """Describes what is not committed, for a process that must end now."""
        steps = self._pending()
        if not steps:
            return "every complete checkpoint is committed; logs or pictures may be missing"
        return f"not committed to {self._store.uri}: checkpoints {', '.join(map(str, steps))}"

    def _pending(self) -> list[int]:
        return [step for step in local_files.complete_steps(self._folders.output) if step > self._settled_step]

    def _upload_pending(self) -> StorageError | None:
        """Uploads checkpoints. One that cannot be uploaded does not hold up those after it; its fault is returned."""
        problem: StorageError | None = None
        for step in self._to_upload():
            try:
                self._upload(step)
            except (Damaged, ContentConflict) as error:
                problem = problem or error
        return problem

    def _to_upload(self) -> list[int]:
        """Returns all checkpoints that are there, oldest first; in the limited time of a stop, only the most useful one."""
        waiting = [step for step in self._pending() if not self._is_uploaded(step)]
        seconds = stopping.seconds_left(self._folders.agent)
        if seconds is None:
            return waiting
        sizes = {step: local_files.bytes_below(self._folders.checkpoint(step)) for step in waiting}
        chosen = stopping.next_upload(sizes, self._report.bytes_per_second, seconds)
        return [] if chosen is None else [chosen]

    def _is_uploaded(self, step: int) -> bool:
        """Whether this node's part of a step is in storage: a later pass may have saved the step again."""
        return step in self._uploaded and self._uploaded[step] == seals.pass_of(self._folders.checkpoint(step))

    def _upload(self, step: int) -> None:
        self._report.uploading(local_files.bytes_below(self._folders.checkpoint(step)))
        self._upload_began[step] = time.monotonic()
        with self._report.upload_seconds.time():
            receipt = upload_checkpoint(
                self._store, self._claim, self._options.node, step, self._folders.checkpoint(step), self._report.sent,
                self._folders.agent / "uploads", self._known,
            )  # fmt: skip
        self._report.uploaded()
        self._uploaded[step] = receipt.pass_id
        self._looks, self._next_look = delays(FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS), 0.0
        log.info("uploaded this node's %d files of checkpoint %d", len(receipt.files), step)

    def _commit_uploaded(self) -> None:
        for step in sorted(self._uploaded):
            receipts = receipts_of(self._store, self._claim, step, self._options.nodes)
            if receipts is not None and receipts[0].pass_id == self._uploaded[step]:
                entry = commit(
                    self._store, self._claim, receipts, self._folders.checkpoint(step), self._options.world_size,
                    self._now(),
                )  # fmt: skip
                log.info("committed checkpoint %d: %d bytes from %d nodes", step, entry.bytes, len(receipts))
                self._settle(entry)
                self._end_uploads(step)

    def _end_uploads(self, step: int) -> None:
        """Ends open uploads: with all receipts there, they belong to a process that was killed. A failure undoes no commit."""
        try:
            below = f"{index.folder(self._store, self._claim, step)}/"
            open_uploads.end_recorded(self._store, self._claim.attempt, below)
        except StorageError as error:
            log.warning("uploads that a killed process left open stay until the next attempt: %s", error)

    def _learn_commits(self) -> None:
        """Learns from the index what is committed, also after a restart of this process."""
        current = index.read_owned(self._store, self._claim).index
        if self._options.node == 0:
            self._deletion_due = _first_deletion(current)
        newest = current.newest
        if newest is None:
            return
        if not self._begun and newest.step == self._settled_step:
            self._learn_content(newest)
        if newest.step > self._settled_step:
            self._settle(newest)
        elif newest.step == self._settled_step and not self._begun:
            self._report.committed(newest, now=False)

    def _learn_content(self, entry: IndexEntry) -> None:
        """Learns the content of the newest checkpoint, which saves uploads. Without it, nothing else is lost."""
        try:
            files = read_manifest(self._store, entry).manifest.files
        except StorageError as error:
            log.info("the next checkpoint is sent whole: %s", error)
            return
        self._known = {file.sha256: f"{entry.folder}/{file.path}" for file in files if file.size >= COPY_BYTES}

    def _settle(self, entry: IndexEntry) -> None:
        self._settled_step = entry.step
        self._learn_content(entry)
        self._uploaded = {step: pass_id for step, pass_id in self._uploaded.items() if step > entry.step}
        began = self._upload_began.get(entry.step)
        self._report.committed(entry, seconds=None if began is None else time.monotonic() - began)
        self._upload_began = {step: began for step, began in self._upload_began.items() if step > entry.step}
        self._expire = True

    def _tidy(self) -> StorageError | None:
        """Removes what a commit has replaced. If the store refuses, the commit stays; the fault is returned."""
        try:
            if self._expire:
                self._clear_away()
            self._delete_due()
        except (Fenced, EndpointUnreachable):
            raise
        except StorageError as error:
            return error
        return None

    def _clear_away(self) -> None:
        """After a commit: storage keeps what the policy says, this node keeps the newest checkpoint, and logs follow."""
        if self._options.node == 0 and self._options.keep.last is not None:
            self._retire()
        steps = local_files.complete_steps(self._folders.output)
        local_files.remove_folders(self._folders.checkpoint(step) for step in steps if step < self._settled_step)
        self._extras.send_logs(last=False)
        self._expire = False

    def _retire(self) -> None:
        keep, delay = self._options.keep, timedelta(seconds=self._options.deletion_delay_seconds)
        current = retention.retire(self._store, self._claim, keep, self._in_use, self._now() + delay)
        if (warning := retention.metric_missing(current, keep)) is not None and not self._warned:
            self._warned = True
            log.warning("%s", warning)
        self._deletion_due = _first_deletion(current)

    def _delete_due(self) -> None:
        """Deletes what was removed from the index long enough ago."""
        if self._deletion_due is not None and self._now() >= self._deletion_due:
            self._deletion_due = _first_deletion(retention.delete_due(self._store, self._claim, self._now()))


def _first_deletion(current: CheckpointIndex) -> datetime | None:
    return min((removal.delete_after for removal in current.removals), default=None)
