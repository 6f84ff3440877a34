"""HTTP GET from this machine's own servers, past any proxy."""

import urllib.request

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, limit: int = 1 << 20, seconds: float = 1.0) -> bytes:
    """The first `limit` bytes of an answer.

    Raises:
        OSError: no answer within `seconds`, or an answer that is an error.
    """
    with _DIRECT.open(url, timeout=seconds) as answer:
        body: bytes = answer.read(limit)
    return body
