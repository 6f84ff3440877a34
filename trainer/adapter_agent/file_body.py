"""Bodies of requests that the kernel copies from a file to the socket; botocore does everything else about a request.

Signing, retries, renewed credentials, redirects and errors stay botocore's: `before-send` is its event for whoever puts
the prepared request on the wire instead. With TLS, or through a proxy, botocore sends the same body itself.
"""

import http.client
import io
import queue
import select
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.utils import get_environ_proxies
from urllib3 import HTTPResponse

from adapter_agent.errors import Damaged

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONTINUE_SECONDS = 1.0
"""How long a store may take to say that it wants the body; some never do."""
_BLOCK = 256 * 2**10
_EVENTS = ("before-send.s3.PutObject", "before-send.s3.UploadPart")


class FileBody(io.RawIOBase):
    """`size` bytes of a file from `first` on, as a body that may be sent again."""

    def __init__(self, path: Path, first: int, size: int) -> None:
        self.path, self.first, self.size = path, first, size
        self._position = 0
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self.size

    def readable(self) -> bool:
        """As io has it."""
        return True

    def seekable(self) -> bool:
        """As io has it."""
        return True

    def tell(self) -> int:
        """Counted from `first`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Counted from `first`."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At least `size` bytes while there are so many: senders ask for 16 KiB, and each call costs."""
        wanted = self.size if size < 0 else max(size, _BLOCK)
        self._file.seek(self.first + self._position)
        body = self._file.read(min(wanted, self.size - self._position)) or b""
        self._position += len(body)
        return body

    def send_to(self, target: socket.socket) -> None:
        """Copies everything to a socket.

        Raises:
            Damaged: the file has become shorter.
        """
        sent = target.sendfile(self._file, self.first, self.size)
        if sent != self.size:
            raise Damaged(f"{self.path}: changed while it was uploaded")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


class DirectSender:
    """Sends FileBody bodies over plain HTTP on connections of its own, which it keeps open."""

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._timeouts = connect_timeout, read_timeout
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()

    @classmethod
    def serve(cls, client: "S3Client", connect_timeout: float, read_timeout: float) -> Self:
        """Makes a client send so."""
        sender = cls(connect_timeout, read_timeout)
        for event in _EVENTS:
            client.meta.events.register(event, sender)  # type: ignore[arg-type]
        return sender

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """The store's reply; None leaves the request to botocore, whose errors are raised."""
        body: Any = request.body  # its stub knows only what botocore itself puts there
        url = urlsplit(request.url)
        if not isinstance(body, FileBody) or url.scheme != "http" or get_environ_proxies(request.url):
            return None
        connection = self._connection(url.netloc, request.url)
        try:
            reply = connection.exchange(request, body)
            content = reply.read()
        except TimeoutError as error:
            connection.close()
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=error) from error
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None and not reply.will_close and connection.sent_all:
            self._idle.put(connection)
        else:
            connection.close()
        headers = dict(reply.getheaders())
        raw = HTTPResponse(io.BytesIO(content), headers, reply.status, preload_content=False)
        return AWSResponse(request.url, reply.status, headers, raw)  # type: ignore[arg-type]

    def _connection(self, place: str, url: str) -> "_Connection":
        with suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if (connection.place, connection.is_idle()) == (place, True):
                    return connection
                connection.close()
        connect_timeout, read_timeout = self._timeouts
        connection = _Connection(place, timeout=connect_timeout)
        try:
            connection.connect()
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=url, error=error) from error
        connection.sock.settimeout(read_timeout)
        return connection


class _Connection(http.client.HTTPConnection):
    """One connection, which knows whether it can carry another request."""

    def __init__(self, place: str, timeout: float) -> None:
        super().__init__(place, timeout=timeout)
        self.place = place
        self.sent_all = False

    def __del__(self) -> None:
        self.close()

    def is_idle(self) -> bool:
        """Whether nothing has come in: a store that closes a connection makes it readable."""
        return not select.select([self.sock], [], [], 0)[0]

    def exchange(self, request: AWSPreparedRequest, body: FileBody) -> http.client.HTTPResponse:
        """Sends headers, then the body if the store does not object to them, and returns the reply."""
        self.sent_all = False
        url = urlsplit(request.url)
        self.putrequest(request.method, f"{url.path or '/'}{url.query and '?'}{url.query}", skip_host=True, skip_accept_encoding=True)  # fmt: skip
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.setdefault("host", self.place)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()
        if "expect" not in headers or self._is_wanted():
            # A store that refuses in the midst of a body says why before it closes.
            with suppress(BrokenPipeError, ConnectionResetError):
                body.send_to(self.sock)
                self.sent_all = True
        return self.getresponse()

    def _is_wanted(self) -> bool:
        """Whether the store says "100 Continue", or nothing; http.client skips that line when it reads the reply."""
        if not select.select([self.sock], [], [], CONTINUE_SECONDS)[0]:
            return True
        return self.sock.recv(12, socket.MSG_PEEK)[9:12] in (b"100", b"")
