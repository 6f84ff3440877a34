"""What a fault proxy does to calls and watches, as a test says it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Call:
    """What the operator asked, and what it was told."""

    method: str
    path: str
    at: float
    """Monotonic seconds."""
    status: int = 0
    """As the operator saw it; 0: no answer."""
    body: bytes = b""
    """What it sent."""
    agent: str = ""
    """Which client of the operator asked: kopf says that it is kopf."""

    @property
    def is_of_kopf(self) -> bool:
        return self.agent.startswith("kopf/")

    @property
    def is_write(self) -> bool:
        """Whether it changes what a job is made of: leases and Events do not count."""
        return self.method != "GET" and "/leases" not in self.path and "/events" not in self.path


@dataclass(frozen=True)
class Answer:
    """Given instead of the API server's, which is not asked."""

    code: int
    reason: str
    retry_after: int | None = None

    def response(self) -> web.Response:
        """A Status object, as the API server sends it."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return web.json_response(_status(self.code, self.reason), status=self.code, headers=headers)


@dataclass(frozen=True)
class WatchError:
    """What a watch tells before it ends, in place of what has happened."""

    code: int
    reason: str

    def line(self) -> bytes:
        """The event, as the API server sends it."""
        return json.dumps({"type": "ERROR", "object": _status(self.code, self.reason)}).encode() + b"\n"


class LoseReply:
    """The API server does as it is asked; the connection breaks before its answer comes."""


Harm = Answer | LoseReply | None


@dataclass
class Faults:
    """What is wrong at the moment; a test changes it while the proxy runs."""

    on_call: Callable[[Call], Harm] = lambda _: None
    """Asked before each call that is no watch."""
    watches: Answer | None = None
    """Answer to every new watch."""
    on_watch: Callable[[str], Answer | WatchError | None] = lambda _: None
    """Asked before each new watch of a kind."""
    withheld: frozenset[str] = frozenset()
    """Kinds whose watches stay open, and tell bookmarks only."""
    has_expired: bool = False
    """Whether a new watch learns that its resourceVersion is too old, once for each resource."""
    repeats: bool = False
    """Whether a watch tells each event twice, and the one before once more."""
    lag_seconds: float = 0.0
    """How much later watches tell."""
    date: Callable[[], str] | None = None
    """The header Date of all answers."""


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": f"injected: {reason}", "metadata": {}}  # fmt: skip
