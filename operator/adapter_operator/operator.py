"""The running operator: takes the lease, watches, lists, reconciles, and ends when it must not go on."""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from adapter_api.job import KIND
from adapter_operator import handlers, metrics, serve
from adapter_operator.cache import Cache
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.lease import Lease
from adapter_operator.progress import ProgressReader
from adapter_operator.queue import WorkQueue
from adapter_operator.reconcile import Reconciler
from adapter_operator.settings import Settings

STUCK_SECONDS = 120.0
"""A key that waits so long for a worker, or an event loop that is so late, means that the process has to be replaced."""
FIRST_RESYNC_SECONDS = 15.0
LATE_SECONDS = 60.0
"""What a list shows and the watch has not told so long after means that the watch is silent."""

log = logging.getLogger(__name__)


class Operator:
    """Everything that runs in one process."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._cache = Cache()
        self._queue = WorkQueue()
        self._watches = handlers.Watches(self._cache, self._queue)
        self._reconciler = Reconciler(cluster, self._cache, settings, lambda: datetime.now(UTC))
        self._leads = self._is_listed = False
        self._silent_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`.

        Raises:
            LeaseLost, ClusterError, OSError: whoever starts the process again starts anew.
        """
        runner = await serve.serve(self._settings.http_port, self._alive, self._ready, self._refresh_metrics)
        lease = Lease(self._cluster, (self._settings.pod_namespace, self._settings.lease_name), self._settings.pod_name)
        try:
            await _first(lease.acquire(), stop.wait())
            if stop.is_set():
                return
            self._leads = True
            try:
                await _first(lease.keep(), self._work(), stop.wait())
            finally:
                await lease.release()
        finally:
            await runner.cleanup()

    async def _work(self) -> None:
        ready = asyncio.Event()
        watching = asyncio.create_task(handlers.watch(self._watches, self._settings, ready))
        try:
            await _first(ready.wait(), self._watch_is_over(watching))
            await self._list()
            self._is_listed = True
            reader = ProgressReader(self._cache, self._settings, self._queue.add)
            workers = [self._reconcile_for_ever() for _ in range(self._settings.workers)]
            await _first(self._watch_is_over(watching), self._resync(), reader.run(), *workers)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    @staticmethod
    async def _watch_is_over(watching: asyncio.Task[None]) -> None:
        await asyncio.wait([watching])
        watching.result()
        raise RuntimeError("the watches ended; a new process starts new ones")

    async def _reconcile_for_ever(self) -> None:
        while True:
            key = await self._queue.take()
            started = time.monotonic()
            try:
                again_in = await self._reconciler.reconcile(key)
            except ClusterError as error:
                delay = self._queue.failed(key, error.retry_after or 0.0)
                level = logging.DEBUG if error.is_conflict else logging.WARNING
                log.log(level, "%s/%s: again in %.1f s: %s", *key, delay, error)
            except Exception:
                delay = self._queue.failed(key)
                log.exception("%s/%s: again in %.1f s", *key, delay)
            else:
                self._queue.done(key, again_in)
            metrics.reconcile_seconds.observe(time.monotonic() - started)

    async def _resync(self) -> None:
        # What was deleted between the first list and the begin of the watches, neither has told.
        pause = min(FIRST_RESYNC_SECONDS, self._settings.resync_seconds)
        while True:
            await asyncio.sleep(pause)
            pause = self._settings.resync_seconds
            try:
                await self._list()
            except ClusterError as error:
                if error.is_not_found:
                    raise  # the CRD is gone, and with it the watch: a new process waits for it to come back
                log.warning("the list failed; the next one is due in %.0f s: %s", self._settings.resync_seconds, error)

    async def _list(self) -> None:
        """Lists everything and forgets what is not there: a watch never tells what was deleted while it was broken."""
        namespace = self._settings.watch_namespace
        pods_before, batch_jobs_before = self._cache.pod_uids(), self._cache.batch_job_uids()
        jobs_before = {key for key, _ in self._cache.jobs()}
        batch_jobs = [raw async for page in self._cluster.pages("Job", namespace) for raw in page]
        self._cache.set_all_batch_jobs(batch_jobs, batch_jobs_before)
        changed: set[tuple[str, str]] = set()
        pods = [_slim(raw) async for page in self._cluster.pages("Pod", namespace) for raw in page]
        changed |= self._cache.set_all_pods(pods, pods_before)
        found: set[tuple[str, str]] = set()
        async for page in self._cluster.pages(KIND, namespace, ""):
            for raw in page:
                key = self._cache.put_job(raw)
                found.add(key)
                self._queue.add(key)
        arrived = {key for key, _ in self._cache.jobs()} - jobs_before
        lost = self._cache.keep_jobs(found | arrived)
        if self._is_listed and (changed or lost):
            log.warning("the watch had not told of %d jobs", len(changed) + len(lost))
            self._silent_since = self._silent_since or time.monotonic()
        else:
            self._silent_since = None

    def _alive(self) -> str | None:
        if self._queue.oldest() > STUCK_SECONDS:
            return f"a job has waited {self._queue.oldest():.0f} s to be reconciled"
        if self._silent_since is not None and time.monotonic() - self._silent_since > LATE_SECONDS:
            return "two lists in a row have shown what the watch has not"
        return None

    def _ready(self) -> str | None:
        # A process that waits for the lease is ready to take over: rolling updates depend on it.
        return None if self._is_listed or not self._leads else "has not listed all jobs yet"

    def _refresh_metrics(self) -> None:
        metrics.jobs.clear()
        for state, count in self._cache.states().items():
            metrics.jobs.labels(state).set(count)
        metrics.queue_depth.set(len(self._queue))
        metrics.queue_age.set(self._queue.oldest())
        for resource, heard in self._watches.heard.items():
            metrics.watch_age.labels(resource).set(time.monotonic() - heard)


def _slim(raw: dict[str, object]) -> dict[str, object]:
    """Without what is never read: thousands of them are held at once."""
    return {"metadata": raw["metadata"], "status": raw.get("status", {})}


async def _first(*awaitables: object) -> None:
    """Waits for the first to end, raises what it raised, and cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
