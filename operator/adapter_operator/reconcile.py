"""Observes a job, decides, and acts: brings one job one step closer to its desired state."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import InvalidDocument, plain
from adapter_api.job import API_VERSION, KIND, AdapterTrainingJob
from adapter_api.names import RESTORE, TRAINER
from adapter_api.status import JobStatus
from adapter_api.stored_status import status_of
from adapter_operator import metrics
from adapter_operator.act.actor import Actor, NameConflict, Refused
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.decide.decide import decide
from adapter_operator.decide.decision import Announce, Decision, Launch, Remove, RemoveJob, State
from adapter_operator.decide.second_look import Look, second_look
from adapter_operator.decide.steps import NAME_CONFLICT, REFUSED, Restore, Step, Tell, steps_of
from adapter_operator.names import Key
from adapter_operator.observe.cache import Cache, CachedJob
from adapter_operator.observe.observed import Observed
from adapter_operator.settings import Settings
from adapter_operator.tell import job_status
from adapter_operator.tell.events import About, events
from adapter_operator.tell.pacing import Pacing

PARSED = 512
"""Number of validated specifications that are kept."""
LOG_LINES, LOG_CHARACTERS = 20, 4096
PREVENTED_SECONDS = 30.0
"""Seconds before the operator tries again what it was prevented from doing."""
NEVER = math.inf
CHECK_SECONDS = 5
"""Seconds between two live looks at a job whose pods do not appear, or do not end."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """A decision about a job, and the observations that it is based on."""

    job: AdapterTrainingJob
    now: datetime
    observed: Observed
    decision: Decision


@dataclass
class Reconciler:
    """The reconciler of all jobs. What it remembers between two calls only saves work."""

    cluster: Cluster
    cache: Cache
    settings: Settings
    clock: Callable[[], datetime]
    _parsed: dict[tuple[str, int, bytes], AdapterTrainingJob | str] = field(default_factory=dict)
    _checked: dict[Key, float] = field(default_factory=dict)
    _restored: dict[Key, float] = field(default_factory=dict)
    """When the objects around a job's pods were last seen."""

    def __post_init__(self) -> None:
        """Marks that nothing has been written yet."""
        self._pacing = Pacing(self.settings)
        self._actor = Actor(self.cluster, self.cache, self.settings)

    async def reconcile(self, key: Key) -> float | None:
        """Takes one step for a job. Returns the seconds until the next look, if nothing happens before.

        Raises:
            ClusterError: Something could not be written or read; everything done so far can safely be repeated.
            Exception: Any other fault that this job causes in the operator; the job's status reports it.
        """
        try:
            return await self._step(key)
        except ClusterError:
            raise
        except Exception as error:
            await self._admit(key, error)
            raise

    async def _admit(self, key: Key, error: Exception) -> None:
        """Reports in a job's status that it cannot be reconciled, as far as the status can be written."""
        try:
            if (cached := self.cache.job(key)) is not None:
                before = status_of(cached.status)
                now = self.clock().replace(microsecond=0)
                await self._write(key, cached, before, job_status.stumbled(before, cached.generation, error, now), now)
        except Exception as another:  # noqa: BLE001 - what is told is not worth more than that the others go on
            log.warning("%s/%s: its status cannot say that: %s", *key, str(another)[:LOG_CHARACTERS])

    async def _step(self, key: Key) -> float | None:
        cached = self.cache.job(key)
        if cached is None or cached.deleting:
            self._pacing.forget(key)
            self._checked.pop(key, None)
            self._restored.pop(key, None)
            return None
        now = self.clock().replace(microsecond=0)
        await asyncio.sleep(0)  # to validate a large job takes a tenth of a second: others have their turn in between
        job = self._job(key, cached)
        if isinstance(job, str):
            before = status_of(cached.status)
            after = job_status.invalid(before, cached.generation, job, now)
            await self._write(key, cached, before, after, now)
            return None
        view = await self._decide(key, job, now)
        wait = NEVER
        try:
            for step in steps_of(view.decision, job.status):
                wait = min(wait, await self._take(step, key, cached, view))
        except (NameConflict, Refused) as error:
            return await self._cannot_act(key, job, view.decision, error, now)
        if view.decision.look_at is not None:
            wait = min(wait, max(0.0, (view.decision.look_at - self.clock()).total_seconds()))
        return None if wait == NEVER else wait

    async def _take(self, step: Step, key: Key, cached: CachedJob, view: View) -> float:
        """Carries out one step. Returns the seconds after which this step needs another look."""
        job, created = view.job, datetime.fromisoformat(cached.created)
        match step:
            case Announce(attempt):
                await self._actor.announce(job, key, attempt)
            case Tell():
                tail = await self._log_tail(key, view.decision)
                after = job_status.status(job, view.observed, view.decision, view.now, tail)
                return await self._tell(key, cached, job.status, after, view.now)
            case Launch(attempt):
                await self._actor.launch(job, attempt, created)
                self._checked[key] = self._restored[key] = time.monotonic()
                return float(CHECK_SECONDS)
            case Remove(attempt):
                await self._actor.remove(key, cached.uid, attempt)
                self.cache.forget_progress(key)
            case RemoveJob():
                await self._actor.remove_job(key, cached.uid)
            case Restore(attempt):
                if self._is_to_be_restored(key):
                    await self._actor.restore(job, attempt, created)
        return NEVER

    async def _decide(self, key: Key, job: AdapterTrainingJob, now: datetime) -> View:
        """Decides what to do, and decides again if the first decision needs a live look at the cluster."""
        observed = self.cache.observed(key)
        decision = decide(job, observed, now)
        look = second_look(observed, decision)
        if look is None or not (look is Look.EVERYTHING or self._is_due(key)):
            return View(job, now, observed, decision)
        await self._look(look, key, job, decision.attempt)
        observed = self.cache.observed(key)
        return View(job, now, observed, decide(job, observed, now))

    async def _look(self, look: Look, key: Key, job: AdapterTrainingJob, attempt: int) -> None:
        """Updates the cache from the cluster itself."""
        if look in {Look.EVERYTHING, Look.PODS}:
            self.cache.set_pods(key, await self.cluster.pods_of(key))
        if look is Look.EVERYTHING and job.spec.scheduling.queue_name is not None:  # it may have taken the quota back
            await self._actor.look_at(key, max(job.status.attempt, 1))
        if look is Look.BATCH_JOB:
            await self._actor.look_at(key, attempt)
            batch_job = self.cache.observed(key).batch_jobs.get(attempt)
            if batch_job is not None and not batch_job.is_suspended:
                await self._ask_for_refusal(key, attempt, batch_job.uid)

    async def _ask_for_refusal(self, key: Key, attempt: int, uid: str) -> None:
        """Finds out why pods do not appear: a quota or a policy reports that only to the Job controller."""
        try:
            self.cache.put_refused(key, attempt, await self.cluster.refusal_of_pods(key[0], uid))
        except ClusterError as error:
            log.debug("%s/%s: no Events of attempt %d: %s", *key, attempt, error)

    def _is_due(self, key: Key) -> bool:
        """Whether enough time has passed since the last live look at a job, or since the first one was possible."""
        checked = self._checked.setdefault(key, time.monotonic())
        if time.monotonic() - checked < CHECK_SECONDS - 1:
            return False
        self._checked[key] = time.monotonic()
        return True

    def _job(self, key: Key, cached: CachedJob) -> AdapterTrainingJob | str:
        """Returns the job with its present status, or a message that says why it is invalid."""
        if cached.fault is not None:
            return f"{key[0]}/{key[1]}: {cached.fault}"
        version = (cached.uid, cached.generation, cached.spec)
        parsed = self._parsed.get(version)
        if parsed is None:
            parsed = _validated(cached.raw(key))
            while len(self._parsed) >= PARSED:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[version] = parsed
        if isinstance(parsed, str):
            return parsed
        return parsed.model_copy(update={"status": status_of(cached.status)})

    async def _tell(self, key: Key, cached: CachedJob, before: JobStatus, after: JobStatus, now: datetime) -> float:
        """Writes the status if it has changed and its time has come. Returns the seconds until then."""
        if after == before:
            return NEVER
        wait = self._pacing.wait(key, before, after, self.cache.states["Running"])
        if wait > 0:
            return wait
        await self._write(key, cached, before, after, now)
        return NEVER

    async def _write(self, key: Key, cached: CachedJob, before: JobStatus, after: JobStatus, now: datetime) -> None:
        if after == before:
            return
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # With its version: whoever decided on an older view than the server's must look again.
            "metadata": {"name": key[1], "namespace": key[0], "resourceVersion": str(cached.resource_version)},
            "status": after.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            reply = await self.cluster.apply_status(manifest)
        except ClusterError as error:
            if error.is_conflict:
                await self._refresh(key)
            raise
        self._pacing.written(key)
        self.cache.put_job(reply)
        if after.state != before.state:
            log.info("%s/%s: %s -> %s", *key, before.state or "new", after.state)
        if after.restarts != before.restarts and after.last_failure is not None:
            metrics.restarts.labels(key[0], after.last_failure.reason).inc()
        newly_lost = (after.lost_steps or 0) - (before.lost_steps or 0)
        if newly_lost > 0:
            metrics.lost_steps.labels(key[0]).inc(newly_lost)
        if self.settings.commit_marks and after.checkpoint is not None and _is_newer(after, before):
            await self._actor.mark_commit(key, cached.uid, after.attempt, after.checkpoint)
        about = About(key, cached.uid, datetime.fromisoformat(cached.created), self.settings.pod_name)
        for told in events(about, before, after, now):
            await self._send_event(told)

    async def _refresh(self, key: Key) -> None:
        try:
            self.cache.put_job(await self.cluster.get(KIND, key))
        except ClusterError as error:
            if not error.is_not_found:
                raise

    async def _send_event(self, told: dict[str, Any]) -> None:
        """Sends an Event. If it is lost, nothing is lost that the status does not hold."""
        try:
            await self.cluster.create(told)
        except ClusterError as error:
            if not error.is_conflict:
                log.warning("an Event could not be sent: %s", error)

    def _is_to_be_restored(self, key: Key) -> bool:
        """Whether the objects around a job's pods were last seen long enough ago."""
        now = time.monotonic()
        if now - self._restored.setdefault(key, now) < self.settings.resync_seconds:
            return False
        self._restored[key] = now
        return True

    async def _cannot_act(
        self, key: Key, job: AdapterTrainingJob, decision: Decision, error: Exception, now: datetime
    ) -> float:
        """Reports in the status what prevents the step, and tries again later: another client may remove the cause."""
        cached = self.cache.job(key)
        if cached is not None:
            reason = NAME_CONFLICT if isinstance(error, NameConflict) else REFUSED
            job = job.model_copy(update={"status": status_of(cached.status)})
            told = Decision(
                state=State.PENDING, reason=reason, message=str(error), attempt=decision.attempt,
                restarts=decision.restarts, last_failure=decision.last_failure, start_time=decision.start_time,
            )  # fmt: skip
            after = job_status.status(job, self.cache.observed(key), told, now)
            # Pods may come up all the same, where only the Service is prevented: their figures are paced as elsewhere.
            delay = await self._tell(key, cached, job.status, after, now)
            if delay is not None:
                return min(delay, PREVENTED_SECONDS)
        return PREVENTED_SECONDS

    async def _log_tail(self, key: Key, decision: Decision) -> str:
        """Returns the end of the failed container's log, which is gone when its pod is deleted."""
        failure = decision.failure
        if failure is None or failure.pod is None or not failure.is_charged:
            return ""
        container = RESTORE if failure.reason in {"RestoreFailed", "InvalidConfiguration"} else TRAINER
        try:
            async with asyncio.timeout(3):
                return await self.cluster.log_tail((key[0], failure.pod), container, LOG_LINES, LOG_CHARACTERS)
        except (ClusterError, TimeoutError) as error:
            log.debug("%s/%s: no log of %s: %s", *key, failure.pod, error)
            return ""


def _is_newer(after: JobStatus, before: JobStatus) -> bool:
    """Whether a running attempt has committed a checkpoint since the last status."""
    if after.state != State.RUNNING.value or after.checkpoint is None or before.attempt != after.attempt:
        return False
    return before.checkpoint is None or before.checkpoint.step != after.checkpoint.step


def _validated(raw: dict[str, Any]) -> AdapterTrainingJob | str:
    whole = {"apiVersion": API_VERSION, "kind": KIND, "metadata": raw["metadata"], "spec": raw["spec"]}
    try:
        source = f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
        return validate_for_cluster(plain(whole, source, at=("spec",)))
    except InvalidDocument as error:
        return str(error)
