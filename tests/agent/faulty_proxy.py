"""Stands before the store and loses replies, or worse."""

import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.agent.seaweed import BUCKET


@dataclass
class Request:
    method: str
    key: str
    query: str
    body: bytes
    number: int = 0
    """Of the request among those that a test counts."""


class Proxy:
    """Stands before the store. `rule` says of each request: pass it on, lose the reply, cut it in two, accept it falsely, or hang."""

    def __init__(self, target: str) -> None:
        self.rule: Callable[[Request], str] = lambda _: "pass"
        self.after: Callable[[Request], None] = lambda _: None
        """Called when the store has answered, before the reply goes on."""
        self.log: list[Request] = []
        self.hanging = threading.Event()
        self._released = threading.Event()
        proxy, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                key = path.removeprefix(f"/{BUCKET}/")
                request = Request(self.command, key, query, body)
                proxy.log.append(request)
                verdict = proxy.rule(request)
                if verdict == "hang":
                    proxy.hanging.set()
                    proxy._released.wait(60)
                    self.close_connection = True
                    return
                if verdict == "lose_before":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if verdict == "accept":
                    self.send_response(200)
                    self.send_header("ETag", '"0123"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(host, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                reply = upstream.getresponse()
                content = reply.read()
                upstream.close()
                proxy.after(request)
                if verdict == "lose":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if verdict == "cut" else content)
                self.close_connection = self.close_connection or verdict == "cut"

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
