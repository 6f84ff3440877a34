"""An HTTP proxy before an API server that does harm as a test says: refuses, loses replies, cuts, hushes, delays, repeats."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from tests.operator.support.faults import Answer, Call, Faults, LoseReply, WatchError
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane, address_of

Result = TypeVar("Result")
_DROPPED = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection", "date"})


@dataclass
class FaultProxy:
    """Plain HTTP towards the operator; the right to do everything towards the API server, unless a token is sent."""

    plane: Plane
    folder: Path
    faults: Faults = field(default_factory=Faults)
    calls: list[Call] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    _streams: set[web.StreamResponse] = field(default_factory=set)
    _hushed: set[web.StreamResponse] = field(default_factory=set)

    def start(self) -> Path:
        """A kubeconfig that leads here."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._run(self._serve())
        self.address = f"http://127.0.0.1:{self.port}"
        return self.kubeconfig("proxy")

    def stop(self) -> None:
        """Ends all connections."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, name: str, token: str | None = None) -> Path:
        """One that leads here, as a holder of `token`."""
        user: dict[str, str] = {} if token is None else {"token": token}
        file = self.folder / f"{name}.kubeconfig"
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "clusters": [{"name": "t", "cluster": {"server": self.address}}],
            "users": [{"name": "t", "user": user}],
        }  # fmt: skip
        file.write_text(json.dumps(content))
        return file

    def reset(self) -> None:
        """Nothing is wrong any more; what was counted is forgotten."""
        self.faults = Faults()
        self._told.clear()
        self.calls.clear()

    def cut_watches(self) -> None:
        """Breaks all watches that are open."""

        async def cut() -> None:
            for stream in list(self._streams):
                if (request := stream._req) is not None and request.transport is not None:
                    request.transport.abort()

        self._run(cut())

    def hush_watches(self) -> None:
        """All watches that are open say no more, and stay open."""
        self._hushed |= self._streams

    def watch_count(self) -> int:
        """Watches that are open and not hushed. A client that has gone is noticed when the next event is relayed, or here."""
        return sum(_is_open(stream) for stream in self._streams - self._hushed)

    def writes(self) -> list[Call]:
        """Those so far."""
        return [call for call in self.calls if call.is_write]

    def lists(self) -> int:
        """How often the operator has begun to list everything: that begins with all Jobs."""
        return sum(call.method == "GET" and call.path.endswith("/jobs") for call in list(self.calls))

    def until_listed(self, place: OnPlane) -> None:
        """Until the operator has listed all there is now, and acted on it: the list after the next has ended then."""
        begun = self.lists()
        place.wait("two more lists, and another begun", lambda: self.lists() >= begun + 3)

    def _run(self, task: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(30)

    async def _serve(self) -> int:
        self._server = address_of(self.plane)
        self._as_admin = self._session(is_admin=True)
        self._as_caller = self._session(is_admin=False)
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    def _session(self, *, is_admin: bool) -> aiohttp.ClientSession:
        """Connections to the API server, with a certificate of its own or with none."""
        certificates, secured = self.plane.certificates, ssl.create_default_context()
        if certificates is not None:
            secured.load_verify_locations(certificates / "ca.crt")
            if is_admin:
                secured.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
        connector = aiohttp.TCPConnector(limit=0, ssl=secured)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._as_admin.close()
        await self._as_caller.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        body = await request.read()
        agent = request.headers.get("User-Agent", "")
        call = Call(request.method, request.path, time.monotonic(), body=body, agent=agent)
        harm = self.faults.on_call(call)
        if isinstance(harm, Answer):
            self._note(call, harm.code)
            return harm.response()
        session, headers = self._upstream(request)
        try:
            async with session.request(
                request.method, self._url(request), data=body or None, headers=headers
            ) as answer:
                raw = await answer.read()
        except aiohttp.ClientError:
            self._break(request)
            self._note(call, 0)
            return web.Response(status=502)
        if isinstance(harm, LoseReply):
            self._note(call, 0)
            self._break(request)
            return web.Response(status=502)
        self._note(call, answer.status)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
        kept["Date"] = answer.headers["Date"] if self.faults.date is None else self.faults.date()
        return web.Response(status=answer.status, body=raw, headers=kept)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        resource = request.path.rpartition("/")[2]
        if self.faults.watches is not None:
            return self.faults.watches.response()
        harm = self.faults.on_watch(resource)
        if isinstance(harm, Answer):
            return harm.response()
        if isinstance(harm, WatchError):
            return await self._error(request, harm)
        if self.faults.has_expired and resource not in self._told:
            self._told.add(resource)
            return await self._error(request, WatchError(410, "Expired"))
        session, headers = self._upstream(request)
        try:
            async with session.get(self._url(request), headers=headers) as answer:
                stream = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
                await stream.prepare(request)
                self._streams.add(stream)
                try:
                    await self._relay(answer, stream, resource)
                finally:
                    self._streams.discard(stream)
                    self._hushed.discard(stream)
                return stream
        except (aiohttp.ClientError, ConnectionError):
            self._break(request)
            return web.Response(status=502)

    async def _relay(self, answer: aiohttp.ClientResponse, stream: web.StreamResponse, resource: str) -> None:
        before = b""
        lines: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()

        async def read() -> None:
            rest = b""
            try:
                async for part in answer.content.iter_any():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        lines.put_nowait((time.monotonic(), line + b"\n"))
            finally:
                lines.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (item := await lines.get()) is not None:
                at, line = item
                await asyncio.sleep(max(0.0, at + self.faults.lag_seconds - time.monotonic()))
                if stream in self._hushed:
                    continue
                if resource in self.faults.withheld and json.loads(line)["type"] != "BOOKMARK":
                    continue
                await stream.write(line + before + line if self.faults.repeats else line)
                before = line
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _error(self, request: web.Request, error: WatchError) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        await stream.write(error.line())
        return stream

    def _upstream(self, request: web.Request) -> tuple[aiohttp.ClientSession, dict[str, str]]:
        wanted = ("Authorization", "Content-Type", "Accept", "User-Agent")
        headers = {name: request.headers[name] for name in wanted if name in request.headers}
        return (self._as_caller if "Authorization" in headers else self._as_admin), headers

    def _url(self, request: web.Request) -> str:
        return f"{self._server}{request.path_qs}"

    def _note(self, call: Call, status: int) -> None:
        self.calls.append(replace(call, status=status))

    @staticmethod
    def _break(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()


def _is_open(stream: web.StreamResponse) -> bool:
    request = stream._req
    return request is not None and request.transport is not None and not request.transport.is_closing()


@contextmanager
def fault_proxy(plane: Plane, folder: Path) -> Iterator[FaultProxy]:
    """A proxy that stands before an API server for as long as the block; its kubeconfig is in `folder`."""
    proxy = FaultProxy(plane, folder)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
