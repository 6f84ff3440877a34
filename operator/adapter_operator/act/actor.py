"""Does what was decided: creates an attempt, deletes one, deletes a job. Every step may be repeated."""

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
    """An object of a name that we need belongs to somebody else."""


class Refused(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server does not accept what the job needs: a quota, a policy, a missing right."""


@dataclass(frozen=True)
class Actor:
    """Acts on one job after the other."""

    cluster: Cluster
    cache: Cache
    settings: Settings

    async def launch(self, job: AdapterTrainingJob, attempt: int, created: datetime) -> None:
        """Creates what the attempt needs; its Job last, so that pods find everything.

        Raises:
            NameConflict: see there.
            Refused: see there.
            ClusterError: to be tried again.
        """
        uid = str(job.metadata.uid)
        *around, batch_job = manifests(job, attempt, created, self.settings)
        await asyncio.gather(*(self._ensure(manifest, uid, is_new=attempt == 1) for manifest in around))
        self.cache.put_batch_job(await self._ensure(batch_job, uid, is_new=True))

    async def announce(self, job: AdapterTrainingJob, key: Key, attempt: int) -> None:
        """Creates the Service that makes node 0's name lead to it.

        Raises:
            NameConflict: see there.
            Refused: see there.
            ClusterError: to be tried again.
        """
        await self._ensure(service(job), str(job.metadata.uid), is_new=attempt == 1)
        self.cache.put_announced(key, attempt)

    async def restore(self, job: AdapterTrainingJob, attempt: int, created: datetime) -> None:
        """Creates what an attempt that runs needs besides its Job, where it is gone.

        Raises:
            NameConflict: see there.
            Refused: see there.
            ClusterError: to be tried again.
        """
        *around, _ = [service(job), *manifests(job, attempt, created, self.settings)]
        await asyncio.gather(*(self._ensure(manifest, str(job.metadata.uid), is_new=False) for manifest in around))

    async def _ensure(self, manifest: Plain, uid: str, *, is_new: bool) -> Plain:
        """The object, created if it is not there."""
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
        """Deletes an attempt's Job and pods, gracefully.

        Raises:
            Refused: a right is missing.
            ClusterError: to be tried again.
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
        """Tells schedulers of a commit, on the attempt's Job and pods; what cannot be told now is told with the next commit."""
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
        """Puts the present state of an attempt's Job into the cache."""
        found = await self._get("Job", (key[0], attempt_name(key[1], attempt)))
        if found is None:
            self.cache.drop_batch_job(key, attempt)
        else:
            self.cache.put_batch_job(found)

    async def remove_job(self, key: Key, uid: str) -> None:
        """Deletes the AdapterTrainingJob, and with it all that it owns."""
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
