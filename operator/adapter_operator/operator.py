"""The running operator: takes the lease, watches, lists, reconciles, and ends when it must not go on."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from adapter_api.job import KIND
from adapter_operator import metrics, serve
from adapter_operator.cache import Cache
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.lease import Lease
from adapter_operator.names import OURS, Key
from adapter_operator.observed import pod_of
from adapter_operator.progress import ProgressReader
from adapter_operator.queue import WorkQueue
from adapter_operator.reconcile import Reconciler
from adapter_operator.settings import Settings
from adapter_operator.watch import Watch

STUCK_SECONDS = 120.0
"""A key that waits so long for a worker, or an event loop that is so late, means that the process has to be replaced."""
UNSERVED_SECONDS = 1.0
"""Between two looks whether the CRD is there."""
POD_SECONDS = 0.05
"""What the pods of a gang tell within so long is looked at once."""
Plain = dict[str, Any]

log = logging.getLogger(__name__)


class ClusterRestored(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server is back at an earlier state; what is known of a later one has to be forgotten."""


class Operator:
    """Everything that runs in one process."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._cache = Cache()
        self._queue = WorkQueue()
        self._watches = (
            self._watch(KIND, "", self._on_job),
            self._watch("Pod", OURS, self._on_pod),
        )
        self._listing = asyncio.Lock()
        self._reconciler = Reconciler(cluster, self._cache, settings, cluster.clock.now)
        self._newest = 0
        """resourceVersion of the last list."""
        self._leads = self._is_listed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`.

        Raises:
            LeaseLost, ClusterRestored, ClusterError, OSError: whoever starts the process again starts anew.
        """
        runner = await serve.serve(self._settings.http_port, self._alive, self._ready, self._refresh_metrics)
        settings = self._settings
        key = (settings.pod_namespace, settings.lease_name)
        lease = Lease(self._cluster, key, settings.pod_name, settings.lease_seconds)
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
        await self._until_served()
        versions = await self._list()
        self._is_listed = True
        watches = [watch.run(versions[watch.kind]) for watch in self._watches]
        reader = ProgressReader(self._cache, self._settings, self._queue.add, self._cluster.clock.now)
        workers = [self._reconcile_for_ever() for _ in range(self._settings.workers)]
        await _first(*watches, self._resync(), reader.run(), *workers)

    async def _until_served(self) -> None:
        """Waits for the API server to know AdapterTrainingJobs, and to let us read them."""
        told = ""
        while True:
            try:
                await self._cluster.probe(KIND, self._settings.watch_namespace)
            except ClusterError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("waits until AdapterTrainingJobs can be listed: %s", error)
                await asyncio.sleep(UNSERVED_SECONDS)
            else:
                return

    def _watch(self, kind: str, selector: str, on_event: Callable[[str, Plain], None]) -> Watch:
        async def list_anew() -> str:
            return (await self._list())[kind]

        return Watch(self._cluster, kind, self._settings.watch_namespace, selector, on_event, list_anew)

    def _on_job(self, event: str, raw: Plain) -> None:
        self._queue.add(self._cache.drop_job(raw) if event == "DELETED" else self._cache.put_job(raw))

    def _on_pod(self, event: str, raw: Plain) -> None:
        key = self._cache.drop_pod(raw) if event == "DELETED" else self._cache.put_pod(raw)
        if key is not None:
            self._queue.add(key, POD_SECONDS)

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
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                await self._list()
            except ClusterError as error:
                if error.is_not_found:
                    raise  # the CRD is gone, and with it the watch: a new process waits for it to come back
                log.warning("the list failed; the next one is due in %.0f s: %s", self._settings.resync_seconds, error)

    async def _list(self) -> dict[str, str]:
        """Lists everything and forgets what is not there. Returns the resourceVersions to watch from, by kind."""
        async with self._listing:
            namespace, pods_version, jobs_version = self._settings.watch_namespace, "", ""
            batch_jobs_before = self._cache.batch_job_uids()
            batch_jobs = [raw async for page, _ in self._cluster.pages("Job", namespace) for raw in page]
            self._cache.set_all_batch_jobs(batch_jobs, batch_jobs_before)
            pods_before, pods = self._cache.pod_uids(), []
            async for page, version in self._cluster.pages("Pod", namespace):
                pods_version = version
                pods += [pod for raw in page if (pod := pod_of(raw)) is not None]
            changed = self._cache.set_all_pods(pods, pods_before)
            jobs_before, found = {key for key, _ in self._cache.jobs()}, set[Key]()
            async for page, version in self._cluster.pages(KIND, namespace, ""):
                jobs_version = version
                found |= {self._cache.put_job(raw) for raw in page if not self._went(raw, jobs_before)}
            self._must_not_go_back(int(jobs_version))
            lost = self._cache.keep_jobs(found | {key for key, _ in self._cache.jobs()} - jobs_before)
            if self._is_listed and (changed or lost):
                log.info("a list has shown more than the watches of %d jobs", len(changed) + len(lost))
            for key in found:
                self._queue.add(key)
            return {"Pod": pods_version, KIND: jobs_version}

    def _must_not_go_back(self, version: int) -> None:
        if version < self._newest:
            told = f"resourceVersion {version} after {self._newest}"
            raise ClusterRestored(
                f"the cluster is back at an earlier state ({told}): a new process has to forget the later"
            )
        self._newest = version

    def _went(self, raw: Plain, jobs_before: set[Key]) -> bool:
        """Whether the watch has told, while the list was made, that this job is gone."""
        key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
        return key in jobs_before and self._cache.job(key) is None

    def _alive(self) -> str | None:
        if self._queue.oldest() > STUCK_SECONDS:
            return f"a job has waited {self._queue.oldest():.0f} s to be reconciled"
        stuck = next((watch.kind for watch in self._watches if self._is_listed and watch.is_stuck), None)
        if stuck is not None:
            return f"the watch of {stuck} does nothing any more"
        return None

    def _ready(self) -> str | None:
        # A process that waits for the lease is ready to take over: rolling updates depend on it.
        return None if self._is_listed or not self._leads else "has not listed all jobs yet"

    def _refresh_metrics(self) -> None:
        metrics.jobs.clear()
        for state, count in self._cache.states.items():
            metrics.jobs.labels(state).set(count)
        metrics.queue_depth.set(len(self._queue))
        metrics.queue_age.set(self._queue.oldest())
        for watch in self._watches:
            metrics.watch_age.labels(watch.kind).set(time.monotonic() - watch.heard)


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
