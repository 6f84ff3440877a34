"""Answers /healthz, /readyz and /metrics."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from adapter_operator import metrics

Check = Callable[[], str | None]
"""Says what is wrong, or None."""


async def serve(port: int, is_alive: Check, is_ready: Check, refresh: Callable[[], None]) -> web.AppRunner:
    """Listens on all addresses; the caller ends it with `cleanup`.

    Args:
        port: TCP port.
        is_alive: Asked for /healthz: a fault there ends the process, by the kubelet.
        is_ready: Asked for /readyz.
        refresh: Called before metrics are read.
    """

    def answer(check: Check) -> Callable[[web.Request], object]:
        async def handle(_request: web.Request) -> web.Response:
            fault = check()
            return web.Response(text=(fault or "ok") + "\n", status=200 if fault is None else 503)

        return handle

    async def scrape(_request: web.Request) -> web.Response:
        refresh()
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", answer(is_alive))  # type: ignore[arg-type]
    app.router.add_get("/readyz", answer(is_ready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", scrape)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
