"""What a process does as long as it holds the lease: it lists, watches pods, reconciles, and says whether all is well."""

import asyncio
import logging
import time
from typing import Any

from adapter_api.job import KIND
from adapter_operator import metrics
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.guarded import taken
from adapter_operator.names import OURS, Key
from adapter_operator.observe.cache import Cache
from adapter_operator.observe.observed import pod_of
from adapter_operator.observe.progress import ProgressReader
from adapter_operator.observe.untold import Untold
from adapter_operator.observe.watch import Watch
from adapter_operator.queue import WorkQueue
from adapter_operator.reconcile import Reconciler
from adapter_operator.settings import Settings
from adapter_operator.tasks import first
from adapter_operator.tell.summary import summaries

STUCK_SECONDS = 120.0
"""A key that waits so long for a worker, or an event loop that is so late, means that the process has to be replaced."""
UNSERVED_SECONDS = 1.0
"""Between two looks whether the CRD is there."""
POD_SECONDS = 0.05
"""What the pods of a gang tell within so long is looked at once."""
PRUNE_SECONDS = 1.0
"""After kopf has listed the jobs, they are listed once more: it tells of none that went before."""
Plain = dict[str, Any]

log = logging.getLogger(__name__)


class ClusterRestored(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server is back at an earlier state; what is known of a later one has to be forgotten."""


class Leader:
    """Everything between what the API server tells and what it is asked to do."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._cache = Cache()
        self._queue = WorkQueue()
        self._pods = Watch(cluster, "Pod", settings.watch_namespace, OURS, self._on_pod, self._list)
        self._untold = Untold(2 * settings.watch_silence_seconds)
        self._listing = asyncio.Lock()
        self._was_listed = asyncio.Event()
        """Set when kopf has listed the jobs."""
        self._reconciler = Reconciler(cluster, self._cache, settings, cluster.clock.now)
        self._newest = 0
        """resourceVersion of the last list."""
        self._leads = False
        self.has_listed = asyncio.Event()
        """Set once everything has been listed."""

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            ClusterRestored, ClusterError: whoever starts the process again starts anew.
        """
        self._leads = True
        await self._until_served()
        version = await self._list()
        self.has_listed.set()
        reader = ProgressReader(self._cache, self._settings, self._queue.add, self._cluster.clock.now)
        workers = [self._reconcile_for_ever() for _ in range(self._settings.workers)]
        await first(self._pods.run(version), self._resync(), self._prune(), reader.run(), *workers)

    def on_job(self, event: str | None, raw: Plain) -> None:
        """What kopf tells of a job: ADDED, MODIFIED, DELETED, or None for one that its list has shown."""
        taken(lambda shown: self._take_job(event, shown), raw)

    def _take_job(self, event: str | None, raw: Plain) -> None:
        self._untold.told(raw)
        if event == "DELETED":
            self._queue.add(self._cache.drop_job(raw))
            return
        known = self._cache.job((raw["metadata"]["namespace"], raw["metadata"]["name"]))
        key = self._cache.put_job(raw)
        if event is None:
            self._was_listed.set()
        if event is not None or self._cache.job(key) is not known:
            self._queue.add(key)

    def is_alive(self) -> str | None:
        """What only a new process can mend."""
        if self._queue.oldest() > STUCK_SECONDS:
            return f"a job has waited {self._queue.oldest():.0f} s to be reconciled"
        if self.has_listed.is_set() and self._pods.is_stuck:
            return "the watch of Pod does nothing any more"
        if self._untold.is_overdue:
            return f"lists show more of {KIND}s than their watch reported"
        return None

    def is_ready(self) -> str | None:
        """What is still missing."""
        # A process that waits for the lease is ready to take over: rolling updates depend on it.
        return None if self.has_listed.is_set() or not self._leads else "has not listed all jobs yet"

    def refresh_metrics(self) -> None:
        """Sets what is only known when it is asked for."""
        for gauge in (metrics.jobs, metrics.commit_age, metrics.goodput):
            gauge.clear()
        statuses = ((namespace, job.status) for (namespace, _), job in self._cache.jobs())
        for namespace, seen in summaries(statuses, self._cluster.clock.now()).items():
            for state, count in seen.states.items():
                metrics.jobs.labels(namespace, state).set(count)
            if seen.commit_age is not None:
                metrics.commit_age.labels(namespace).set(seen.commit_age)
            if seen.goodput is not None:
                metrics.goodput.labels(namespace).set(seen.goodput)
        metrics.queue_depth.set(len(self._queue))
        metrics.queue_age.set(self._queue.oldest())
        metrics.watch_age.labels("Pod").set(time.monotonic() - self._pods.heard)
        metrics.watch_age.labels(KIND).set(self._untold.age())

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

    def _on_pod(self, event: str, raw: Plain) -> None:
        key = taken(self._cache.drop_pod if event == "DELETED" else self._cache.put_pod, raw)
        if key is not None:
            self._queue.add(key, POD_SECONDS)

    async def _reconcile_for_ever(self) -> None:
        while True:
            key = await self._queue.take()
            started = time.monotonic()
            try:
                again_in = await self._reconciler.reconcile(key)
            except ClusterError as error:
                metrics.reconciled("error")
                delay = self._queue.failed(key, error.retry_after or 0.0)
                level = logging.DEBUG if error.is_conflict else logging.WARNING
                log.log(level, "%s/%s: again in %.1f s: %s", *key, delay, error)
            except Exception:
                metrics.reconciled("error")
                delay = self._queue.failed(key)
                log.exception("%s/%s: again in %.1f s", *key, delay)
            else:
                metrics.reconciled("success" if again_in is None else "requeue_after")
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

    async def _prune(self) -> None:
        """Forgets the jobs that went while kopf did not watch: before its first list, and before each one after a gap."""
        while True:
            await self._was_listed.wait()
            await asyncio.sleep(PRUNE_SECONDS)
            self._was_listed.clear()
            try:
                async with self._listing:
                    lost, _ = await self._list_jobs()
            except ClusterError as error:
                self._was_listed.set()
                log.warning("the list of jobs failed, and is made again: %s", error)
            else:
                for key in lost:
                    self._queue.add(key)

    async def _list(self) -> str:
        """Lists everything and forgets what is not there. Returns the resourceVersion to watch pods from."""
        async with self._listing:
            namespace, pods_version = self._settings.watch_namespace, ""
            batch_jobs_before = self._cache.batch_job_uids()
            batch_jobs = [raw async for page, _ in self._cluster.pages("Job", namespace) for raw in page]
            self._cache.set_all_batch_jobs(batch_jobs, batch_jobs_before)
            pods_before, pods = self._cache.pod_uids(), []
            async for page, version in self._cluster.pages("Pod", namespace):
                pods_version = version
                pods += [pod for raw in page if (pod := taken(pod_of, raw)) is not None]
            changed = self._cache.set_all_pods(pods, pods_before)
            lost, found = await self._list_jobs()
            if self.has_listed.is_set() and (changed or lost):
                log.info("a list has shown more than the watches of %d jobs", len(changed) + len(lost))
            for key in found:
                self._queue.add(key)
            return pods_version

    async def _list_jobs(self) -> tuple[list[Key], set[Key]]:
        """Lists the jobs; returns those that are not there any more, and those that are."""
        jobs_before, found, jobs_version = {key for key, _ in self._cache.jobs()}, set[Key](), ""
        async for page, version in self._cluster.pages(KIND, self._settings.watch_namespace, ""):
            jobs_version = version
            for raw in page:
                key = taken(lambda shown: self._take_listed(shown, jobs_before), raw)
                if key is not None:
                    found.add(key)
        self._must_not_go_back(int(jobs_version))
        self._untold.has_listed(found)
        lost = self._cache.keep_jobs(found | {key for key, _ in self._cache.jobs()} - jobs_before)
        return lost, found

    def _take_listed(self, raw: Plain, jobs_before: set[Key]) -> Key | None:
        """Puts a job of a list into the cache, unless it has gone meanwhile."""
        if self._went(raw, jobs_before):
            return None
        self._untold.listed(raw, self._cache)
        return self._cache.put_job(raw)

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
