"""Carries out decisions: creates an attempt, deletes one, deletes a job. Every step may be repeated."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime

from adapter_api.job import KIND, AdapterTrainingJob
from adapter_api.names import JOB_LABEL
from adapter_api.status import CheckpointStatus
from adapter_operator.act.commit_marks import commit_marks
from adapter_operator.act.manifests import manifests, service
from adapter_operator.cluster import Cluster, ClusterError, Plain
from adapter_operator.names import CONTROLLER_LABEL, Key, attempt_name
from adapter_operator.observe.cache import Cache
from adapter_operator.settings import Settings

log = logging.getLogger(__name__)

_REFUSALS = frozenset({400, 403, 422})


class NameConflict(Exception):  # noqa: N818 - it reads as the fact that it states
    """An object with a name that the operator needs belongs to another owner."""


class Refused(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server rejects what the job needs: because of a quota, a policy, or a missing permission."""


@dataclass(frozen=True)
class Actor:
    """Acts on one job at a time."""

    cluster: Cluster
    cache: Cache
    settings: Settings

    async def launch(self, job: AdapterTrainingJob, attempt: int, created: datetime) -> None:
        """Creates the objects of the attempt; its Job last, so that pods find the others.

        Raises:
            NameConflict: An object with one of their names belongs to another owner.
            Refused: The API server rejects one of them.
            ClusterError: The call failed; try again.
        """
        uid = str(job.metadata.uid)
        *around, batch_job = manifests(job, attempt, created, self.settings)
        await asyncio.gather(*(self._ensure(manifest, uid, is_new=attempt == 1) for manifest in around))
        self.cache.put_batch_job(await self._ensure(batch_job, uid, is_new=True))

    async def announce(self, job: AdapterTrainingJob, key: Key, attempt: int) -> None:
        """Creates the Service by which the other nodes find node 0.

        Raises:
            NameConflict: A Service with its name belongs to another owner.
            Refused: The API server rejects it.
            ClusterError: The call failed; try again.
        """
        await self._ensure(service(job), str(job.metadata.uid), is_new=attempt == 1)
        self.cache.put_announced(key, attempt)

    async def restore(self, job: AdapterTrainingJob, attempt: int, created: datetime) -> None:
        """Creates again what is missing of the objects that a running attempt needs in addition to its Job.

        Raises:
            NameConflict: An object with one of their names belongs to another owner.
            Refused: The API server rejects one of them.
            ClusterError: The call failed; try again.
        """
        *around, _ = [service(job), *manifests(job, attempt, created, self.settings)]
        await asyncio.gather(*(self._ensure(manifest, str(job.metadata.uid), is_new=False) for manifest in around))

    async def _ensure(self, manifest: Plain, uid: str, *, is_new: bool) -> Plain:
        """Returns the object, and creates it if it does not exist."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if not is_new and (found := await self._get(kind, key)) is not None:
            return _ours(found, uid, kind)
        try:
            return await self.cluster.create(manifest)
        except ClusterError as error:
            if error.is_conflict and (found := await self._get(kind, key)) is not None:
                return _ours(found, uid, kind)
            if error.code in _REFUSALS:
                raise Refused(f"the {kind} {key[1]} was refused: {error}") from error
            raise

    async def _get(self, kind: str, key: Key) -> Plain | None:
        try:
            return await self.cluster.get(kind, key)
        except ClusterError as error:
            if error.is_not_found:
                return None
            raise

    async def remove(self, key: Key, uid: str, attempt: int) -> None:
        """Deletes an attempt's Job and pods with their grace period.

        Raises:
            Refused: The operator lacks a permission.
            ClusterError: The call failed; try again.
        """
        name = (key[0], attempt_name(key[1], attempt))
        # By the Job's uid: names and numbers come again with a job that is made anew, and this may be done late.
        batch_jobs = {pod.batch_job_uid for pod in self.cache.observed(key).of(attempt)}
        try:
            found = await self._get("Job", name)
            if found is not None and _owner(found) == uid:
                batch_jobs.add(found["metadata"]["uid"])
                await self.cluster.delete("Job", name, found["metadata"]["uid"])
            if batch_jobs:
                # The garbage collector would do it a little later.
                selector = f"{JOB_LABEL}={key[1]},{CONTROLLER_LABEL} in ({','.join(sorted(batch_jobs))})"
                await self.cluster.delete_pods(key[0], selector)
                self.cache.pods_leave(key, batch_jobs)
        except ClusterError as error:
            if error.code in _REFUSALS:
                raise Refused(f"attempt {attempt} cannot be deleted: {error}") from error
            raise
        self.cache.drop_batch_job(key, attempt)

    async def mark_commit(self, key: Key, uid: str, attempt: int, checkpoint: CheckpointStatus) -> None:
        """Annotates the attempt's Job and pods with the newest commit, for schedulers; after a failure the next commit does."""
        observed, marks = self.cache.observed(key), commit_marks(checkpoint)
        batch_job = observed.batch_jobs.get(attempt)
        if batch_job is None or batch_job.owner != uid:
            return
        targets = [("Job", attempt_name(key[1], attempt), batch_job.uid)]
        targets += [("Pod", pod.name, pod.uid) for pod in observed.of(attempt) if pod.deleted_at is None]
        told = await asyncio.gather(
            *(self.cluster.annotate(kind, (key[0], name), known, marks) for kind, name, known in targets),
            return_exceptions=True,
        )
        for error in told:
            if isinstance(error, ClusterError) and not (error.is_conflict or error.is_not_found):
                log.warning("%s/%s: a commit could not be announced to schedulers: %s", *key, error)
                return  # one missing right would be told once for each pod
            if isinstance(error, BaseException) and not isinstance(error, ClusterError):
                raise error

    async def look_at(self, key: Key, attempt: int) -> None:
        """Updates the cache with the present state of an attempt's Job."""
        found = await self._get("Job", (key[0], attempt_name(key[1], attempt)))
        if found is None:
            self.cache.drop_batch_job(key, attempt)
        else:
            self.cache.put_batch_job(found)

    async def remove_job(self, key: Key, uid: str) -> None:
        """Deletes the AdapterTrainingJob, and with it everything that it owns."""
        await self.cluster.delete(KIND, key, uid)


def _ours(found: Plain, uid: str, kind: str) -> Plain:
    metadata = found["metadata"]
    if _owner(found) != uid:
        raise NameConflict(
            f"there is another {kind} {metadata['name']} in {metadata['namespace']}: delete or rename it, or give the "
            "job another name"
        )
    if "deletionTimestamp" in metadata:
        raise ClusterError(409, f"{kind} {metadata['name']} is being deleted")
    return found


def _owner(found: Plain) -> str | None:
    owners = found["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
