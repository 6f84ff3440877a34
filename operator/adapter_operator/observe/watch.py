"""Watches one kind of object for ever: every change goes into the cache, and its job's key into the queue."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from adapter_operator.cluster import Cluster, ClusterError

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries, for ever: an API server that is away for an hour must not end the watches."""
SILENT_SECONDS = 180.0
"""A watch that has neither heard nor tried anything for so long hangs: its own timeouts are far shorter."""

log = logging.getLogger(__name__)


@dataclass
class Watch:
    """One kind of object, in one namespace or in all.

    Args:
        cluster: Where.
        kind: What.
        namespace: Empty: all of them.
        selector: Labels.
        on_event: Called with the event's type (ADDED, MODIFIED, DELETED) and the object.
        list_anew: Lists, puts what is there into the cache and takes out what is not, and returns the resourceVersion that
            the list is of: what happened since the last event is not known any more.
        sleep: Waits some seconds.
    """

    cluster: Cluster
    kind: str
    namespace: str
    selector: str
    on_event: Callable[[str, dict[str, Any]], None]
    list_anew: Callable[[], Awaitable[str]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    heard: float = field(default_factory=time.monotonic)
    """Monotonic time of the last sign of life: of the server's, or of trying to reach it."""

    async def run(self, version: str) -> None:
        """Until cancelled, from what a list of this resourceVersion did not show yet.

        Raises:
            ClusterError: there is no such kind of object; a new process waits until there is.
        """
        failures = 0
        while True:
            self.heard = time.monotonic()
            is_told = False
            try:
                if not version:
                    version = await self.list_anew()
                async for event in self.cluster.changes(self.kind, self.namespace, self.selector, version):
                    self.heard = time.monotonic()
                    failures, is_told = 0, True
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self.on_event(event["type"], event["object"])
            except ClusterError as error:
                if error.is_not_found:
                    raise
                if error.is_expired:
                    version = ""
                    log.info("the watch of %s starts over: %s", self.kind, error)
                else:
                    log.warning("the watch of %s broke: %s", self.kind, error)
                await self.sleep(max(pause(failures), error.retry_after or 0.0))
                failures += 1
            else:
                if not is_told:  # something between us and the server may end every watch at once
                    await self.sleep(pause(0))

    @property
    def is_stuck(self) -> bool:
        """Whether only a new process can help."""
        return time.monotonic() - self.heard > SILENT_SECONDS


def pause(failures: int) -> float:
    """Seconds before the next try, spread, so that the operators of many clusters do not come back as one."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)
