"""HTTP connections for requests that botocore has prepared and signed, each kept open for the next request.

Retries, renewed credentials, redirects and errors stay botocore's: `before-send` is its event for whoever puts a prepared
request on the wire instead. What needs a proxy is left to it.
"""

import http.client
import io
import queue
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError, SSLError
from botocore.utils import get_environ_proxies
from urllib3 import HTTPResponse

from adapter_agent.storage.proxies import is_loopback
from adapter_agent.storage.tls import TLSStream, verifying_context

CONTINUE_SECONDS = 1.0
"""How long a store may take to say that it wants the body; some never do."""


class Body(Protocol):
    """What goes with a request."""

    def send_to(self, target: socket.socket | TLSStream) -> None:
        """Copies everything to a socket."""


def _readable(sock: socket.socket | TLSStream, seconds: float) -> bool:
    """Whether there is something to read within so long. Unlike select, poll also knows descriptors beyond 1,023."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Connection(http.client.HTTPConnection):
    """One connection, which knows whether it can carry another request."""

    sock: socket.socket | TLSStream

    def __init__(self, url: SplitResult, timeout: float, context: ssl.SSLContext | None) -> None:
        assert url.hostname is not None  # noqa: S101 - botocore makes no other
        super().__init__(url.hostname, url.port or (http.client.HTTP_PORT if context is None else http.client.HTTPS_PORT), timeout)  # fmt: skip
        self.place = url.scheme, url.netloc
        self.sent_all = False
        self._context = context

    def __del__(self) -> None:
        self.close()

    def connect(self) -> None:
        """Also shakes hands, where there is TLS."""
        super().connect()
        if self._context is not None:
            assert isinstance(self.sock, socket.socket)  # noqa: S101 - it has just been made
            self.sock = TLSStream(self.sock, self._context, self.host)

    def is_idle(self) -> bool:
        """Whether nothing has come in: a store that closes a connection makes it readable."""
        return not _readable(self.sock, 0) and not (isinstance(self.sock, TLSStream) and self.sock.has_unread())

    def exchange(self, request: AWSPreparedRequest, body: Body | None) -> http.client.HTTPResponse:
        """Sends headers, then the body if the store does not object to them, and returns the reply."""
        self.sent_all = body is None
        url = urlsplit(request.url)
        self.putrequest(request.method, f"{url.path or '/'}{url.query and '?'}{url.query}", skip_host=True, skip_accept_encoding=True)  # fmt: skip
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.setdefault("host", url.netloc)
        headers.setdefault("accept-encoding", "identity")
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()
        if body is not None and ("expect" not in headers or self._is_wanted()):
            # A store that refuses in the midst of a body says why before it closes.
            with suppress(BrokenPipeError, ConnectionResetError):
                body.send_to(self.sock)
                self.sent_all = True
        return self.getresponse()

    def _is_wanted(self) -> bool:
        """Whether the store says "100 Continue", or nothing; http.client skips that line when it reads the reply."""
        if isinstance(self.sock, TLSStream):
            status = self.sock.peek(12, CONTINUE_SECONDS)
        elif _readable(self.sock, CONTINUE_SECONDS):
            status = self.sock.recv(12, socket.MSG_PEEK)
        else:
            return True
        return status[9:12] in (b"100", b"")


class Connections:
    """Those of one client, to whatever places its requests go. May be used by several threads."""

    def __init__(self, connect_timeout: float, read_timeout: float, authorities: str | None = None) -> None:
        """`authorities`: file with those that certificates are verified with; None: the SDK's own."""
        self._timeouts = connect_timeout, read_timeout
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._authorities = authorities
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def can_carry(self, request: AWSPreparedRequest) -> bool:
        """Whether a request may go this way."""
        return is_loopback(request.url) or not get_environ_proxies(request.url)

    def exchange(self, request: AWSPreparedRequest, body: Body | None = None) -> "Exchange":
        """Sends a request; returns when the headers of the reply are there. Raises what botocore would."""
        connection = self._connection(request.url)
        with botocore_errors(request, connection):
            return Exchange(self, request, connection, connection.exchange(request, body))

    def give_back(self, connection: Connection, reply: http.client.HTTPResponse) -> None:
        """Keeps a connection whose reply nobody reads any more, if it can carry another request."""
        # http.client's close leaves None there.
        if connection.sock is not None and reply.isclosed() and not reply.will_close and connection.sent_all:  # type: ignore[redundant-expr]
            self._idle.put(connection)
        else:
            connection.close()

    def _connection(self, address: str) -> Connection:
        url = urlsplit(address)
        with suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if (connection.place, connection.is_idle()) == ((url.scheme, url.netloc), True):
                    return connection
                connection.close()
        connect_timeout, read_timeout = self._timeouts
        try:
            connection = Connection(url, connect_timeout, self._verifying() if url.scheme == "https" else None)
        except OSError as error:
            raise SSLError(endpoint_url=address, error=error) from error
        try:
            connection.connect()
        except ssl.SSLError as error:
            connection.close()
            raise SSLError(endpoint_url=address, error=error) from error
        except OSError as error:
            connection.close()
            raise EndpointConnectionError(endpoint_url=address, error=error) from error
        connection.sock.settimeout(read_timeout)
        return connection

    def _verifying(self) -> ssl.SSLContext:
        with self._lock:
            self._context = self._context or verifying_context(self._authorities)
            return self._context


@dataclass(frozen=True)
class Exchange:
    """A request that was sent, and a reply whose body is still to be read."""

    connections: Connections
    request: AWSPreparedRequest
    connection: Connection
    reply: http.client.HTTPResponse

    def whole(self) -> AWSResponse:
        """The reply with its body, for botocore."""
        with botocore_errors(self.request, self.connection):
            content = self.reply.read()
        self.end()
        raw = HTTPResponse(io.BytesIO(content), self.headers, self.reply.status, preload_content=False)
        return AWSResponse(self.request.url, self.reply.status, self.headers, raw)  # type: ignore[arg-type]

    @property
    def headers(self) -> dict[str, str]:
        """Of the reply."""
        return dict(self.reply.getheaders())

    def end(self) -> None:
        """To be called once, when nothing more is read."""
        self.connections.give_back(self.connection, self.reply)


@contextmanager
def botocore_errors(request: AWSPreparedRequest, connection: Connection) -> Iterator[None]:
    """Closes the connection if anything fails inside the block, and says it in botocore's words."""
    try:
        yield
    except BaseException as error:
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise SSLError(endpoint_url=request.url, error=error) from error
        if isinstance(error, TimeoutError):
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        if isinstance(error, OSError | http.client.HTTPException):
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=error) from error
        raise
