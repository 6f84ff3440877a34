"""Content of objects that is read from the socket into the caller's own memory.

The SDK's way makes new memory for every block and copies each once more, which costs as much as the reading itself.
"""

import http.client
import socket
from typing import TYPE_CHECKING, Any, Self

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from adapter_agent.storage.connections import Connections, Exchange

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_FIRST_FAULT = 300
"""Status from which on a reply says something to botocore."""


class DirectContent:
    """The body of a reply, with what botocore's StreamingBody asks of one."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def readinto(self, place: memoryview) -> int:
        """Fills `place` as far as the content goes; returns how many bytes came, 0 at its end.

        Raises:
            OSError: the reading broke off. A reply that ends too early is no error here.
        """
        try:
            return self._exchange.reply.readinto(place)
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def shutdown(self) -> None:
        """Makes a read that waits in another thread end, as if nothing more came."""
        self._exchange.connection.sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Keeps the connection if everything has been read, and closes it otherwise."""
        self._exchange.end()


class DirectReceiver:
    """Receives objects on connections of its own."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    def serve(cls, client: "S3Client", connections: Connections) -> Self:
        """Makes a client receive so: the bodies of its objects then have `readinto`, `shutdown` and `close`, and nothing else."""
        receiver = cls(connections)
        client.meta.events.register("before-send.s3.GetObject", receiver)  # type: ignore[arg-type]
        return receiver

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """The store's reply; None leaves the request to botocore, whose errors are raised."""
        if not self._connections.can_carry(request):
            return None
        exchange = self._connections.exchange(request)
        if exchange.reply.status >= _FIRST_FAULT:
            return exchange.whole()
        return AWSResponse(request.url, exchange.reply.status, exchange.headers, DirectContent(exchange))  # type: ignore[arg-type]
