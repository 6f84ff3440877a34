"""Serves /progress and /metrics over HTTP, on threads of its own: uploads never delay an answer."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from adapter_agent.errors import StorageError
from adapter_agent.report import Report

CLIENT_TIMEOUT_SECONDS = 5
"""A client that sends nothing for so long is cut off."""

log = logging.getLogger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, report: Report) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/progress": ("application/json", lambda: report.progress().model_dump_json().encode()),
            "/metrics": (CONTENT_TYPE_LATEST, report.metrics),
        }
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of the host's name, which can take seconds where DNS is slow."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_SECONDS
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
