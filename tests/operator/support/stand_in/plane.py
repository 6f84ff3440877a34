"""An API server stand-in: what the operator and `atj` use of Kubernetes, served over HTTP by this process in milliseconds.

It stands in for kube-apiserver with etcd, for the controllers of namespaces, garbage and Jobs, for the scheduler, and for nodes
as KWOK plays them, so that the real operator and the real command run without a program that Go compiles. It serves objects
with versions, uids and generations; lists in pages; watches with bookmarks, and 410 for what is forgotten; creation,
replacement, merge patches and server-side apply with owners of fields; conflicts of versions; status as a subresource;
deletion with grace, finalizers, preconditions and owners; dry runs; discovery of groups and kinds; and of a
CustomResourceDefinition pruning, defaults, types and bounds.

It leaves out: authentication and rights, TLS, admission webhooks, CEL rules and patterns, validation and defaults of built-in
objects, `managedFields` as a part of objects, other patches, deletion in the foreground, tables, the scale subresource and
discovery of the kinds of other programs, more than one version of a kind, whatever else of a controller nobody here needs, and the real ones' delays.

What is shown here is shown on the real API server, too, by the same tests under the marker `cluster`; and
test_stand_in_is_like_the_api_server compares both, call by call.
"""

import asyncio
import functools
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from tests.operator.support.stand_in.controllers import GarbageCollector, JobController, NamespaceController
from tests.operator.support.stand_in.nodes import Nodes
from tests.operator.support.stand_in.resources import NAMESPACES
from tests.operator.support.stand_in.server import Server
from tests.operator.support.stand_in.store import Key, Store
from tests.operator.support.stand_in.verbs import Options, Verbs

Result = TypeVar("Result")


class StandIn:
    """One API server stand-in, on a thread of its own.

    Args:
        folder: For its kubeconfig.
    """

    certificates = None
    """It speaks plain HTTP, and lets everybody do everything."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.logs: dict[tuple[str, str, str], str] = {}
        """Text of a container's log, by namespace, pod and container."""
        self.refused: dict[str, str] = {}
        """Why no pods can be created in a namespace, as a quota would say it."""
        self._store = Store()
        self._verbs = Verbs(self._store)
        self._server = Server(self._verbs, self.logs)
        self._reacted = self._store.version
        """Version of the last change that the controllers have seen."""
        self._has_reacted = asyncio.Event()
        """Set while there is no change that they have not seen."""
        self._fault: BaseException | None = None

    def start(self) -> None:
        """Serves until `stop`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = self._run(self._serve())
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "clusters": [{"name": "t", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "t", "user": {}}],
        }  # fmt: skip
        self.kubeconfig.write_text(json.dumps(content))

    def stop(self) -> None:
        """Ends all connections.

        Raises:
            RuntimeError: a controller has failed meanwhile.
        """
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._fault is not None:
            raise RuntimeError("a controller of the stand-in has failed") from self._fault

    def forget(self) -> None:
        """Forgets what has happened so far, as etcd does when it is compacted: who asks for it is answered 410."""

        async def forget() -> None:
            await self._has_reacted.wait()
            self._server.forget()

        self._run(forget())

    async def _serve(self) -> int:
        for name in ("default", "kube-system"):
            self._verbs.create(Key(NAMESPACES, "", name), {"metadata": {"name": name}}, Options())
        self._control_task = asyncio.create_task(self._control())
        self._runner = web.AppRunner(
            self._server.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _end(self) -> None:
        self._control_task.cancel()
        await asyncio.gather(self._control_task, return_exceptions=True)
        await self._runner.cleanup()

    async def _control(self) -> None:
        """Lets controllers and nodes react to each change, one after the other."""
        verbs = self._verbs
        controllers = (
            NamespaceController(verbs), GarbageCollector(verbs), JobController(verbs, self._later, self.refused), Nodes(verbs),
        )  # fmt: skip
        changed = asyncio.Event()
        self._store.tell(changed.set)
        while True:
            changed.clear()
            for change in self._store.since(self._reacted) or ():
                for controller in controllers:
                    self._watched(functools.partial(controller.react, change))
                self._reacted = change.version
                await asyncio.sleep(0)
            if not changed.is_set():
                self._has_reacted.set()
                await changed.wait()
                self._has_reacted.clear()

    def _later(self, seconds: float, called: Callable[[], None]) -> None:
        self._loop.call_later(seconds, self._watched, called)

    def _watched(self, called: Callable[[], None]) -> None:
        """Keeps what a controller raises, so that it is told at the end."""
        try:
            called()
        except Exception as error:  # noqa: BLE001
            self._fault = error

    def _run(self, task: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(30)
