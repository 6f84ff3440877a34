"""How many requests may be sent, and when the next one."""

import asyncio
import time


class TokenBucket:
    """Spreads requests: so many a second, and a burst of so many before that."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._ready_at = time.monotonic() - burst / per_second

    async def take(self) -> None:
        """Returns when a request may be sent."""
        now = time.monotonic()
        self._ready_at = max(self._ready_at, now - self._burst / self._per_second) + 1 / self._per_second
        if self._ready_at > now:
            await asyncio.sleep(self._ready_at - now)
