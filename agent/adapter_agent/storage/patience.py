"""Overloaded is not broken: answers that ask to come back later are waited for, with growing pauses, up to a stated time."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapter_agent.storage.answers import OVERLOADED

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WAIT_SECONDS = 60.0
"""How long one request is repeated while the store asks to wait."""
FIRST_SECONDS, LONGEST_SECONDS = 0.25, 8.0
LONGEST_ASKED_SECONDS = 30.0
"""Of what a store asks for with Retry-After."""
_SINCE = "adapter_agent_overloaded_since"


class Patience:
    """Decides, as a handler of the SDK's event `needs-retry`, how long to wait before a request is repeated."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._chance = chance

    def serve(self, client: "S3Client") -> None:
        """Makes a client wait so. Before the SDK's own handler, which repeats a request twice within seconds."""
        client.meta.events.register_first("needs-retry.s3", self)  # type: ignore[arg-type]

    def __call__(self, response: Any, attempts: int, request_dict: dict[str, Any], **_: Any) -> float | None:
        """Seconds to wait; None where the store does not ask for it, or has done so for long enough."""
        if response is None:
            return None
        http, parsed = response
        code = str(parsed.get("Error", {}).get("Code", ""))
        if http.status_code < 400 or (code not in OVERLOADED and http.status_code not in (429, 503)):
            return None
        now = self._clock()
        since: float = request_dict["context"].setdefault(_SINCE, now)
        left = since + WAIT_SECONDS - now
        if left <= 0:
            return None
        pause = min(FIRST_SECONDS * 2 ** min(attempts - 1, 16), LONGEST_SECONDS) * (0.5 + self._chance() / 2)
        asked = http.headers.get("retry-after", "")
        if asked.isdecimal():
            pause = max(pause, min(float(asked), LONGEST_ASKED_SECONDS))
        return float(min(pause, left))
