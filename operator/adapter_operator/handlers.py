"""The only use of kopf: it logs in, lists and watches; an event changes the cache and puts a key into the queue."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import kopf

from adapter_api.job import GROUP, PLURAL, VERSION
from adapter_operator.cache import Cache
from adapter_operator.names import OURS
from adapter_operator.queue import WorkQueue
from adapter_operator.settings import Settings

PAGE = 500


class Watches:
    """What the watches have said, and when."""

    def __init__(self, cache: Cache, queue: WorkQueue) -> None:
        self._cache = cache
        self._queue = queue
        self.heard: dict[str, float] = {}
        """Resource -> monotonic time of its last event."""

    def on_job(self, kind: str | None, raw: dict[str, Any]) -> None:
        """An event of an AdapterTrainingJob; `kind` None: it was listed."""
        self.heard["jobs"] = time.monotonic()
        key = self._cache.drop_job(raw) if kind == "DELETED" else self._cache.put_job(raw)
        self._queue.add(key)

    def on_pod(self, kind: str | None, raw: dict[str, Any]) -> None:
        """An event of a pod."""
        self.heard["pods"] = time.monotonic()
        key = self._cache.drop_pod(raw) if kind == "DELETED" else self._cache.put_pod(raw)
        if key is not None:
            self._queue.add(key)


async def watch(watches: Watches, settings: Settings, ready: asyncio.Event) -> None:
    """Runs kopf until cancelled, or until it gives up; sets `ready` when it watches.

    In a thread of its own: kopf takes over the signals and the tasks of the event loop that it runs in.

    Raises:
        Exception: what ended kopf.
    """
    loop = asyncio.get_running_loop()
    stop, started = threading.Event(), threading.Event()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            kopf.run(
                registry=_registry(watches, loop),
                settings=_options(),
                standalone=True,
                clusterwide=not settings.watch_namespace,
                namespaces=[settings.watch_namespace] if settings.watch_namespace else [],
                stop_flag=stop,
                ready_flag=started,
            )
        except Exception as error:  # noqa: BLE001 - it is raised where `watch` is awaited
            outcome: Exception | None = error
        else:
            outcome = None
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(_end, ended, outcome)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        while not started.is_set() and not ended.done():  # noqa: ASYNC110 - kopf sets an event of threads
            await asyncio.sleep(0.05)
        ready.set()
        await ended
    finally:
        stop.set()


def _end(ended: asyncio.Future[None], error: Exception | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


def _registry(watches: Watches, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
    """No kopf handler but on.event: those write nothing into objects, no annotation and no finalizer."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_via_client(**arguments)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_job(event: kopf.RawEvent, **_: object) -> None:
        loop.call_soon_threadsafe(watches.on_job, event["type"], dict(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: object) -> None:
        loop.call_soon_threadsafe(watches.on_pod, event["type"], dict(event["object"]))

    return registry


def _options() -> kopf.OperatorSettings:
    options = kopf.OperatorSettings()
    options.posting.enabled = False
    options.watching.server_timeout = 300
    options.watching.connect_timeout = 10
    options.watching.inactivity_timeout = 70
    options.watching.chunk_size = PAGE
    options.watching.label_selectors["", "v1", "pods"] = OURS
    options.persistence.diffbase_storage = _NoEssence()
    options.networking.error_backoffs = _Backoffs()
    # It would list and watch namespaces and CRDs, for changes of what is served: a right more, and nothing for us.
    options.scanning.disabled = True
    return options


class _NoEssence(kopf.DiffBaseStorage):
    """Spares a deep copy of every object of every event: nothing of ours asks what has changed."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Writes nothing into objects."""


class _Backoffs:
    """Seconds between tries, for ever: an API server that is away for an hour must not end the watches."""

    def __iter__(self) -> Any:
        delay = 1.0
        while True:
            yield delay
            delay = min(delay * 2, 30.0)
