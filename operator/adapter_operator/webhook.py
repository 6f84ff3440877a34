"""`python -m adapter_operator.webhook`: answers admission reviews over HTTPS; needs no rights in the cluster."""

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from adapter_operator import logs
from adapter_operator.admission import parsed, review

PORT_VARIABLE, CERTIFICATES_VARIABLE = "ADAPTER_WEBHOOK_PORT", "ADAPTER_WEBHOOK_CERTIFICATES"
MAX_REQUEST = 8 * 1024 * 1024
"""The API server sends old and new object; each may have 1.5 MB."""
MAX_WAITING = 32
"""Reviews that wait; the API server waits five seconds for each."""
LOOK_SECONDS = 10.0
"""How often the certificate's files are looked at."""

Plain = dict[str, Any]

log = logging.getLogger("adapter_operator.webhook")


class Busy(Exception):  # noqa: N818 - it reads as the fact that it states
    """More is asked than can be answered in time."""


class Turns:
    """One review after the other: in between, whoever asks how the process is gets an answer."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def taken(self, work: Callable[[], Plain]) -> Plain:
        """What the work gives, when it is its turn.

        Raises:
            Busy: too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(0)
                return work()
        finally:
            self._waiting -= 1


TURNS = web.AppKey("turns", Turns)


async def _validate(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        answer = await request.app[TURNS].taken(lambda: review(parsed(body)))
    except Busy:
        return web.Response(status=503, text="too many reviews at once; try again\n")
    except ValueError as error:
        return web.Response(status=400, text=f"{error}\n")
    response = answer["response"]
    if not response["allowed"]:
        log.info("refused: %s", response["status"]["message"])
    return web.json_response(answer)


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def application() -> web.Application:
    """POST /validate and GET /healthz."""
    app = web.Application(client_max_size=MAX_REQUEST)
    app[TURNS] = Turns()
    app.router.add_post("/validate", _validate)
    app.router.add_get("/healthz", _healthy)
    return app


class Certificate:
    """A TLS context whose certificate follows the files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = (folder / "tls.crt", folder / "tls.key")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._read_at: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Loads the files if they have changed; connections that are open keep theirs.

        Raises:
            OSError: they are missing, or no certificate with its key.
        """
        changed_at = tuple(file.stat().st_mtime_ns for file in self._files)
        if changed_at == self._read_at:
            return False
        self.context.load_cert_chain(*self._files)
        self._read_at = changed_at
        return True

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self.refresh():
                    log.info("serves a new certificate")
            except OSError as error:
                # Half of a rotation: the key may come a moment after the certificate.
                log.warning("keeps the certificate that it has: %s", error)


async def serve(port: int, folder: Path, stop: asyncio.Event) -> None:
    """Until `stop`; requests under way are answered."""
    certificate = Certificate(folder)
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=5)
    await runner.setup()
    following = asyncio.create_task(certificate.follow())
    try:
        await web.TCPSite(runner, None, port, ssl_context=certificate.context).start()
        log.info("listens on port %d", port)
        await stop.wait()
    finally:
        following.cancel()
        await runner.cleanup()


async def _run() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    folder = Path(os.environ.get(CERTIFICATES_VARIABLE, "/etc/webhook/certificates"))
    await serve(int(os.environ.get(PORT_VARIABLE, "9443")), folder, stop)


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 when it cannot serve."""
    logs.start(
        os.environ.get("ADAPTER_OPERATOR_LOG_LEVEL", "INFO"), os.environ.get("ADAPTER_OPERATOR_LOG_FORMAT", "json")
    )
    try:
        asyncio.run(_run())
    except (OSError, ValueError) as error:
        log.error("cannot serve: %s; check %s and %s", error, CERTIFICATES_VARIABLE, PORT_VARIABLE)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
