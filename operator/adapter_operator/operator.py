"""The process from its start to its end: connects, serves, waits for the lease, leads, and gives everything back."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from adapter_operator import serve
from adapter_operator.cluster import Cluster
from adapter_operator.leader import Leader
from adapter_operator.lease import Lease
from adapter_operator.settings import Settings
from adapter_operator.tasks import first

Plain = dict[str, Any]


class Operator:
    """What kopf's handlers call; it knows nothing of them.

    Args:
        connect: Opens the connections to the API server.
        settings: Of the process.
    """

    def __init__(self, connect: Callable[[], Awaitable[Cluster]], settings: Settings) -> None:
        self._connect = connect
        self._settings = settings
        self._ending = contextlib.AsyncExitStack()
        self._fault: BaseException | None = None
        self.ended = asyncio.Event()
        """Set when the process has to end, or has ended."""

    async def start(self) -> None:
        """Returns when this process leads and has listed everything.

        Raises:
            Exception: it cannot; all that had begun is ended.
        """
        try:
            await self._begin()
        except BaseException as error:
            self._fault = None if isinstance(error, asyncio.CancelledError) else error
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the work, gives the lease back, and closes all connections."""
        self.ended.set()  # somebody waits for it, even where a signal came first
        await self._ending.aclose()

    def tell_why(self) -> None:
        """Raises what has ended the operator, if it was a fault."""
        if self._fault is not None:
            raise self._fault

    async def session(self) -> tuple[str, aiohttp.ClientSession]:
        """The API server's address and a session with fresh credentials, which the caller closes.

        Raises:
            ClusterError, OSError: there are no credentials.
        """
        return await self._cluster.open_session()

    def on_job(self, event: str | None, raw: Plain) -> None:
        """What a watch tells of an AdapterTrainingJob; None: a list has shown it."""
        self._leader.on_job(event, raw)

    async def _begin(self) -> None:
        settings, ending = self._settings, self._ending
        cluster = self._cluster = await self._connect()
        ending.push_async_callback(cluster.close)
        leader = self._leader = Leader(cluster, settings)
        runner = await serve.serve(settings.http_port, leader.is_alive, leader.is_ready, leader.refresh_metrics)
        ending.push_async_callback(runner.cleanup)
        key = (settings.pod_namespace, settings.lease_name)
        lease = Lease(cluster, key, settings.pod_name, settings.lease_seconds)
        # Before it is taken: whoever is asked to end meanwhile may have taken it, and not know.
        ending.push_async_callback(lease.release)
        await lease.acquire()
        work = asyncio.create_task(first(lease.keep(), leader.run()))
        ending.push_async_callback(_cancelled, work)
        await first(leader.has_listed.wait(), asyncio.shield(work))
        work.add_done_callback(self._note_end)

    def _note_end(self, work: "asyncio.Task[None]") -> None:
        if not work.cancelled():
            self._fault = work.exception()
            self.ended.set()


async def _cancelled(task: "asyncio.Task[None]") -> None:
    """Returns when it has ended."""
    task.cancel()
    await asyncio.wait([task])
