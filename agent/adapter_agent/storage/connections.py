"""Plain HTTP connections for requests that botocore has prepared and signed, each kept open for the next request.

Retries, renewed credentials, redirects and errors stay botocore's: `before-send` is its event for whoever puts a prepared
request on the wire instead. What needs TLS or a proxy is left to it.
"""

import http.client
import io
import queue
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.utils import get_environ_proxies
from urllib3 import HTTPResponse

from adapter_agent.storage.proxies import is_loopback

CONTINUE_SECONDS = 1.0
"""How long a store may take to say that it wants the body; some never do."""


class Body(Protocol):
    """What goes with a request."""

    def send_to(self, target: socket.socket) -> None:
        """Copies everything to a socket."""


def _readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read within so long. Unlike select, poll also knows descriptors beyond 1,023."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Connection(http.client.HTTPConnection):
    """One connection, which knows whether it can carry another request."""

    def __init__(self, place: str, timeout: float) -> None:
        super().__init__(place, timeout=timeout)
        self.place = place
        self.sent_all = False

    def __del__(self) -> None:
        self.close()

    def is_idle(self) -> bool:
        """Whether nothing has come in: a store that closes a connection makes it readable."""
        return not _readable(self.sock, 0)

    def exchange(self, request: AWSPreparedRequest, body: Body | None) -> http.client.HTTPResponse:
        """Sends headers, then the body if the store does not object to them, and returns the reply."""
        self.sent_all = body is None
        url = urlsplit(request.url)
        self.putrequest(request.method, f"{url.path or '/'}{url.query and '?'}{url.query}", skip_host=True, skip_accept_encoding=True)  # fmt: skip
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.setdefault("host", self.place)
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
        if not _readable(self.sock, CONTINUE_SECONDS):
            return True
        return self.sock.recv(12, socket.MSG_PEEK)[9:12] in (b"100", b"")


class Connections:
    """Those of one client, to whatever places its requests go. May be used by several threads."""

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._timeouts = connect_timeout, read_timeout
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()

    def can_carry(self, request: AWSPreparedRequest) -> bool:
        """Whether a request may go this way."""
        is_direct = is_loopback(request.url) or not get_environ_proxies(request.url)
        return urlsplit(request.url).scheme == "http" and is_direct

    def exchange(self, request: AWSPreparedRequest, body: Body | None = None) -> "Exchange":
        """Sends a request; returns when the headers of the reply are there. Raises what botocore would."""
        connection = self._connection(urlsplit(request.url).netloc, request.url)
        with botocore_errors(request, connection):
            return Exchange(self, request, connection, connection.exchange(request, body))

    def give_back(self, connection: Connection, reply: http.client.HTTPResponse) -> None:
        """Keeps a connection whose reply nobody reads any more, if it can carry another request."""
        if connection.sock is not None and reply.isclosed() and not reply.will_close and connection.sent_all:
            self._idle.put(connection)
        else:
            connection.close()

    def _connection(self, place: str, url: str) -> Connection:
        with suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if (connection.place, connection.is_idle()) == (place, True):
                    return connection
                connection.close()
        connect_timeout, read_timeout = self._timeouts
        connection = Connection(place, timeout=connect_timeout)
        try:
            connection.connect()
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=url, error=error) from error
        connection.sock.settimeout(read_timeout)
        return connection


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
        if isinstance(error, TimeoutError):
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        if isinstance(error, OSError | http.client.HTTPException):
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=error) from error
        raise
