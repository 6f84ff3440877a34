"""TLS for the agent's own connections: one read from the kernel brings many records, which are decrypted in memory.

Python's own TLS sockets ask the kernel twice for each record of 16 KiB, which costs a fifth of the whole reading.
"""

import io
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from boto3.session import Session
from botocore.httpsession import create_urllib3_context, get_cert_path

_READ_BYTES = 256 * 2**10


def authorities_of(session: Session) -> str | None:
    """Returns the file that the SDK verifies certificates with, if the environment or the AWS configuration names one."""
    named = session._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 shows it no other way
    return named or os.environ.get("REQUESTS_CA_BUNDLE") or None


def verifying_context(authorities: str | None) -> ssl.SSLContext:
    """Returns a context like the SDK's, which always verifies certificate and host.

    Args:
        authorities: File with the authorities' certificates; None: those that the SDK brings.

    Raises:
        OSError: The authorities' file cannot be read, or holds no certificates.
    """
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    context.load_verify_locations(authorities or get_cert_path(True))
    return context


class TLSStream:
    """A connected socket with TLS on it; it has the methods of a socket that connections use."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        """Performs the handshake.

        Raises:
            ssl.SSLError: The other side does not speak TLS, or its certificate is not accepted for `host`.
        """
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.rstrip("."))
        self._came = memoryview(bytearray(_READ_BYTES))
        self._ahead = b""
        self._exchanged(self._tls.do_handshake)

    def fileno(self) -> int:
        """Returns the descriptor of the underlying socket."""
        return self._sock.fileno()

    def settimeout(self, seconds: float) -> None:
        """Sets the timeout, in seconds, of each read and write of the underlying socket."""
        self._sock.settimeout(seconds)

    def has_unread(self) -> bool:
        """Whether bytes have arrived that have not been read."""
        return bool(self._ahead or self._tls.pending() or self._incoming.pending)

    def peek(self, count: int, seconds: float) -> bytes:
        """Returns the next bytes without consuming them; b"" at the end, or if none arrive within `seconds`."""
        usual = self._sock.gettimeout()
        self._sock.settimeout(seconds)
        try:
            self._ahead = self._ahead or self._exchanged(self._tls.read, count)
        except (TimeoutError, ssl.SSLEOFError):
            return b""
        finally:
            self._sock.settimeout(usual)
        return self._ahead

    def recv_into(self, place: memoryview) -> int:
        """Fills `place` with what has arrived, and waits if nothing has. Returns the number of bytes; 0 at the end."""
        if self._ahead:
            taken = min(len(self._ahead), len(place))
            place[:taken], self._ahead = self._ahead[:taken], self._ahead[taken:]
            return taken
        try:
            count: int = self._exchanged(self._tls.read, len(place), place)
        except ssl.SSLEOFError:
            return 0  # an end that nobody has announced; who reads counts what came
        with suppress(ssl.SSLWantReadError, ssl.SSLEOFError):  # of the next record, a part has come
            while count and count < len(place) and self._incoming.pending:
                more: int = self._tls.read(len(place) - count, place[count:])  # type: ignore[assignment]
                if not more:
                    break
                count += more
        return count

    def sendall(self, body: Any) -> None:
        """Sends bytes, or a view of them."""
        self._exchanged(self._tls.write, body)

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        """Returns the file that http.client reads replies from. The socket stays open until the file is closed as well."""
        return io.BufferedReader(_Records(self, self._sock.makefile("rb", buffering=0)))

    def shutdown(self, how: int) -> None:
        """Shuts the underlying socket down."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Closes the socket without a TLS closure alert: HTTP's lengths say what is whole."""
        self._sock.close()

    def _exchanged(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Takes a step of TLS, and sends and receives what the step needs."""
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                self._send_outgoing()
                if count := self._sock.recv_into(self._came):
                    self._incoming.write(self._came[:count])
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                with suppress(OSError):
                    self._send_outgoing()  # the alert that says why
                raise
            else:
                self._send_outgoing()
                return result

    def _send_outgoing(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


class _Records(io.RawIOBase):
    """Unbuffered reads of a stream."""

    def __init__(self, stream: TLSStream, keeps_open: io.RawIOBase | socket.SocketIO) -> None:
        self._stream, self._keeps_open = stream, keeps_open

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, place: Any) -> int:
        """See io.RawIOBase."""
        return self._stream.recv_into(memoryview(place))

    def close(self) -> None:
        """Closes the socket, if its owner has closed it already."""
        self._keeps_open.close()
        super().close()
