"""Stands before the store and loses replies, refuses, stalls, or damages what goes through."""

import http.client
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.agent.support.seaweed import BUCKET

Headers = Callable[[str, str, dict[str, str], bytes], dict[str, str]]


@dataclass
class Request:
    method: str
    key: str
    query: str
    body: bytes
    number: int = 0
    """Of the request among those that a test counts."""
    first: int = 0
    """Where the range begins that is asked for."""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""


REFUSALS = {
    "slow_down": (503, "SlowDown", "said by the proxy"),
    "expired": (400, "ExpiredToken", "said by the proxy"),
    "unknown_key": (403, "InvalidAccessKeyId", "said by the proxy"),
    "denied": (403, "AccessDenied", "said by the proxy"),
    "in_trouble": (500, "InternalError", "said by the proxy"),
    "changed": (412, "PreconditionFailed", "said by the proxy"),
    "not_implemented": (501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
    "unsupported_header": (400, "InvalidArgument", "Unsupported header received for this API call"),
}
"""Verdict -> status, code and message that a store would answer with."""
STALL_SECONDS = 2.0


class Proxy:
    """Stands before the store. `rule` says of each request what happens to it.

    pass; without_length (of the body); trickle (it); hang; lose_before or lose (the reply); accept falsely; a key of REFUSALS; stall, and then pass; of the reply's
    body: cut it in two, reset the connection in its middle, or flip one of its bits.
    """

    def __init__(self, target: str, context: ssl.SSLContext | None = None) -> None:
        """`context`: with which it speaks TLS to who asks; None: plain HTTP."""
        self.rule: Callable[[Request], str] = lambda _: "pass"
        self.after: Callable[[Request], None] = lambda _: None
        """Called when the store has answered, before the reply goes on."""
        self.seen: Callable[[Request, int, bytes], None] = lambda _request, _status, _body: None
        """Called with the status and the body of each reply that goes on."""
        self.headers: Headers = lambda _method, _path, headers, _body: headers
        """What the store gets to see of a request's headers."""
        self.spell: Callable[[str], str] = lambda name: name
        """How the names of a reply's headers are written."""
        self.bodies = {"web_page": b"<!DOCTYPE html><html><body><p>Welcome<br></body></html>"}
        """Verdict -> what is answered with 200, whatever was asked."""
        self.etags: dict[str, str] = {}
        """Verdict -> ETag of the object that is said to have been written."""
        self.replies: dict[str, str] = {}
        """Header of a reply, in lower case -> what is said instead."""
        self.log: list[Request] = []
        self.chance = random.Random(1)
        self.hanging = threading.Event()
        self._released = threading.Event()
        proxy, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                key = path.removeprefix(f"/{BUCKET}/")
                first = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0]
                given = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, key, query, body, first=int(first), headers=given)
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
                if verdict == "stall":
                    time.sleep(STALL_SECONDS)
                if verdict in REFUSALS:
                    status, code, words = REFUSALS[verdict]
                    said = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)
                    return
                if verdict in proxy.bodies:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html" if verdict == "web_page" else "application/xml")
                    self.send_header("Content-Length", str(len(proxy.bodies[verdict])))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(proxy.bodies[verdict])
                    return
                if verdict == "accept" or verdict in proxy.etags:
                    self.send_response(200)
                    self.send_header("ETag", proxy.etags.get(verdict, '"0123"'))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(host, timeout=30)
                headers = proxy.headers(self.command, self.path, dict(self.headers), body)
                upstream.request(self.command, self.path, body, headers)
                reply = upstream.getresponse()
                content = reply.read()
                upstream.close()
                proxy.after(request)
                if verdict == "lose":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                proxy.seen(request, reply.status, content)
                self.pass_on(verdict, reply.status, reply.getheaders(), content)

            def pass_on(self, verdict: str, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response(status)
                dropped = {"connection", "transfer-encoding", "date", "server"}
                if verdict == "without_length":
                    dropped |= {"content-length"}
                    self.close_connection = True
                for name, value in headers:
                    if name.lower() not in dropped:
                        self.send_header(proxy.spell(name), proxy.replies.get(name.lower(), value))
                self.end_headers()
                if verdict == "trickle":
                    self.close_connection = True
                    for at in range(len(content)):
                        self.wfile.write(content[at : at + 1])
                        if proxy._released.wait(0.05):
                            return
                    return
                if verdict in {"cut", "reset"}:
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    if verdict == "reset":
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.connection.close()
                    return
                if verdict == "flip" and content:
                    at = proxy.chance.randrange(len(content))
                    content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
