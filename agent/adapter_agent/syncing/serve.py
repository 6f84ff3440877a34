"""Serves /progress and /metrics over HTTP, on threads of its own: uploads never delay an answer."""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from adapter_agent.errors import StorageError
from adapter_agent.syncing.report import Report

REQUEST_SECONDS = 10.0
"""From the connection to the end of the reply: whoever takes longer, however busily, is cut off."""
MAX_CLIENTS = 32
"""At once; more are turned away. Descriptors that slow clients take are missing where checkpoints go up."""

log = logging.getLogger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, report: Report) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/progress": ("application/json", lambda: report.progress().model_dump_json().encode()),
            "/metrics": (CONTENT_TYPE_LATEST, report.metrics),
        }
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of the host's name, which can take seconds where DNS is slow."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread of its own, if there is one left."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no thread can be started
                self._free.release()
                raise
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Until it is answered, or its time is over."""
        limit = threading.Timer(REQUEST_SECONDS, self._cut_off, args=(request,))
        limit.daemon = True
        limit.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            limit.cancel()
            self._free.release()

    def _cut_off(self, request: socket.socket) -> None:
        with suppress(OSError):  # it has been closed this very moment
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the base class has it
        """Of a client that has gone, or was cut off."""
        log.debug("a client of /progress and /metrics was not answered: %s", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, "only /progress and /metrics are served")
            return
        content_type, content = page
        body = content()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug(format, *args)


@contextmanager
def serving(host: str, port: int, report: Report) -> Iterator[str]:
    """Serves inside the block; yields the address, http://host:port.

    Raises:
        StorageError: the port cannot be taken.
    """
    try:
        server = _Server(host, port, report)
    except OSError as error:
        raise StorageError(
            f"--listen={host}:{port}: cannot listen there: {error.strerror}; choose another port, or 0 for a free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
