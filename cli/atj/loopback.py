"""HTTP GET from this machine's own servers, past any proxy."""

import urllib.request
from collections.abc import Mapping

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, limit: int = 1 << 20, seconds: float = 1.0, headers: Mapping[str, str] | None = None) -> bytes:
    """The first `limit` bytes of an answer.

    Raises:
        OSError: no answer within `seconds`, or an answer that is an error.
    """
    asked = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - the callers name http alone
    with _DIRECT.open(asked, timeout=seconds) as answer:
        body: bytes = answer.read(limit)
    return body
