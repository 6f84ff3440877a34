"""Reads committed objects in pieces, and judges what was read."""

from collections.abc import Iterator

from urllib3.exceptions import HTTPError

from adapter_agent.errors import Damaged, EndpointUnreachable
from adapter_agent.storage import content
from adapter_agent.storage.pace import TOO_SLOW, TooSlow, watched
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import FileEntry

TRIES = 4
"""Of one file, when reading breaks off; each goes on where the one before ended."""
_CHUNK = 256 * 2**10


def chunks(store: Store, key: str, first: int = 0, last: int | None = None) -> Iterator[bytes]:
    """The bytes of an object from `first` to `last`, both included; without `last` to its end.

    Raises:
        EndpointUnreachable: reading broke off.
        ObjectMissing: there is no such object.
    """
    span = {} if first == 0 and last is None else {"Range": f"bytes={first}-{'' if last is None else last}"}
    try:
        with store.naming(key):
            body = store.client.get_object(Bucket=store.bucket, Key=store.full_key(key), **span)["Body"]  # type: ignore[arg-type]
            with body as stream, watched(stream) as pace:  # type: ignore[arg-type]
                while chunk := body.read(_CHUNK):
                    pace.came(len(chunk))
                    yield chunk
                if pace.was_too_slow:
                    raise TooSlow(f"{store.uri_of(key)} at {store.endpoint}: {TOO_SLOW}")
    except (HTTPError, OSError) as error:
        raise EndpointUnreachable(f"{store.uri_of(key)} at {store.endpoint}: reading broke off ({error})") from error


def judge(place: str, file: FileEntry, count: int, sha256: str, head: bytes) -> None:
    """Raises `Damaged` unless what was read, `head` being its first bytes, is what was committed."""
    if count != file.size:
        raise Damaged(f"{place}: has {count} bytes where {file.size} are expected")
    if sha256 != file.sha256:
        raise Damaged(f"{place}: its content is damaged: SHA-256 {sha256}, expected {file.sha256}")
    content.refuse_content(place, head)
