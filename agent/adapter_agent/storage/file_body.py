"""Bodies of requests that go from a file to the socket with the fewest copies; botocore does everything else about a request.

Through a proxy, botocore sends the same body itself.
"""

import io
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from adapter_agent.errors import Damaged
from adapter_agent.storage.connections import Connections
from adapter_agent.storage.tls import TLSStream

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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

    def send_to(self, target: socket.socket | TLSStream) -> None:
        """Copies everything to a socket: the kernel does, where nothing has to be encrypted.

        Raises:
            Damaged: the file has become shorter.
        """
        if self.size == 0:
            return  # which sendfile takes for a mistake
        sent = self._encrypted(target) if isinstance(target, TLSStream) else target.sendfile(self._file, self.first, self.size)  # fmt: skip
        if sent != self.size:
            raise Damaged(f"{self.path}: changed while it was uploaded")

    def _encrypted(self, target: TLSStream) -> int:
        self._file.seek(self.first)
        block, sent = memoryview(bytearray(min(_BLOCK, self.size))), 0
        while count := self._file.readinto(block[: self.size - sent]) or 0:
            target.sendall(block[:count])
            sent += count
        return sent

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


class DirectSender:
    """Sends FileBody bodies on connections of its own."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    def serve(cls, client: "S3Client", connections: Connections) -> Self:
        """Makes a client send so."""
        sender = cls(connections)
        for event in _EVENTS:
            client.meta.events.register(event, sender)  # type: ignore[arg-type]
        return sender

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """The store's reply; None leaves the request to botocore, whose errors are raised."""
        body: Any = request.body  # its stub knows only what botocore itself puts there
        if not isinstance(body, FileBody) or not self._connections.can_carry(request):
            return None
        return self._connections.exchange(request, body).whole()
