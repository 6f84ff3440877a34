"""Holds a Kubernetes Lease: one process at a time watches and acts; who loses it exits."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from adapter_operator import metrics
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.names import Key

RENEWALS = 5
"""How often it is renewed in the time that it is good for."""
GIVE_UP = 2 / 3
"""Not renewed for this share of that time, it is taken for lost: before others may take it, whatever their clocks say."""
RELEASE_SECONDS = 5.0
"""How long a process that ends tries to give it back, at most."""

log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818 - it reads as the fact that it states
    """Another process may act now; this one has to end."""


class Lease:
    """The Lease as one candidate sees it (https://kubernetes.io/docs/concepts/architecture/leases/).

    Expiry is judged by how long the object has not changed, on this process's own clock: clocks of others don't matter.

    Args:
        cluster: Where it is kept.
        key: Namespace and name.
        identity: Of this process.
        seconds: How long others wait after its last renewal.
        clock: Seconds that only grow.
    """

    def __init__(
        self, cluster: Cluster, key: Key, identity: str, seconds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._key = key
        self._identity = identity
        self._seconds = seconds
        self._pause = seconds / RENEWALS
        self._clock = clock
        self._seen: tuple[str, float] | None = None
        """resourceVersion of another's lease, and when it was first seen."""
        self._writing: asyncio.Task[object] | None = None
        """The last write, which goes on when whoever waits for it is cancelled."""

    async def acquire(self) -> None:
        """Returns when this process holds the Lease."""
        told = ""
        while True:
            try:
                holder = await self._try()
            except ClusterError as error:
                holder = f"an unknown holder: {error}"
            if holder is None:
                metrics.is_leader.labels(self._key[1]).set(1)
                log.info("holds the lease %s/%s as %s", *self._key, self._identity)
                return
            if holder != told:
                log.info("waits for the lease %s/%s: held by %s", *self._key, holder)
                told = holder
            await asyncio.sleep(self._pause)

    async def keep(self) -> None:
        """Renews until cancelled.

        Raises:
            LeaseLost: another process has it, or it could not be renewed in time.
        """
        renewed = self._clock()
        while True:
            await asyncio.sleep(self._pause)
            try:
                async with asyncio.timeout(GIVE_UP * self._seconds - self._pause):
                    holder = await self._try()
            except (ClusterError, TimeoutError) as error:
                log.warning("the lease could not be renewed: %s", error)
                holder = None
            else:
                renewed = self._clock() if holder is None else renewed
            if holder is not None or self._clock() - renewed > GIVE_UP * self._seconds:
                metrics.is_leader.labels(self._key[1]).set(0)
                raise LeaseLost(f"the lease {self._key[0]}/{self._key[1]} is held by {holder or 'an unknown holder'}")

    async def release(self) -> None:
        """Lets others have it at once, if this process has it, or has just asked for it."""
        metrics.is_leader.labels(self._key[1]).set(0)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._settle()
                found = await self._cluster.get("Lease", self._key)
                if found["spec"].get("holderIdentity") == self._identity:
                    found["spec"]["holderIdentity"] = ""
                    await self._cluster.replace(_typed(found))
        except (ClusterError, TimeoutError) as error:
            if not (isinstance(error, ClusterError) and error.is_not_found):
                log.warning("the lease could not be released: %s", str(error) or type(error).__name__)
        finally:
            if self._writing is not None:
                self._writing.cancel()

    async def _settle(self) -> None:
        """Returns when no write is under way: one that the server does later would take the lease once more."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _try(self) -> str | None:
        """Takes or renews the Lease; returns its holder if that is another."""
        try:
            found = await self._cluster.get("Lease", self._key)
        except ClusterError as error:
            if not error.is_not_found:
                raise
            return await self._write(
                self._cluster.create, {"metadata": {"namespace": self._key[0], "name": self._key[1]}}
            )
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in {"", self._identity} or self._has_expired(found, spec):
            return await self._write(self._cluster.replace, found)
        return str(holder)

    def _has_expired(self, found: dict[str, Any], spec: dict[str, Any]) -> bool:
        version = found["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        return self._clock() - self._seen[1] > (spec.get("leaseDurationSeconds") or self._seconds)

    async def _write(
        self, write: Callable[[dict[str, Any]], Coroutine[Any, Any, object]], found: dict[str, Any]
    ) -> str | None:
        spec = found.get("spec") or {}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        is_ours = spec.get("holderIdentity") == self._identity
        fresh = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._seconds,
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if is_ours else now,
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + (not is_ours),
        }
        if self._writing is not None:
            self._writing.cancel()
        self._writing = asyncio.create_task(write(_typed({**found, "spec": fresh})))
        try:
            await asyncio.shield(self._writing)
        except ClusterError as error:
            if error.is_conflict:
                return "another process that was faster"
            raise
        return None


def _typed(lease: dict[str, Any]) -> dict[str, Any]:
    return {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
