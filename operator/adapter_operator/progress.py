"""Asks node 0's agent of every running job how far it is."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime

import aiohttp
from pydantic import ValidationError

from adapter_api.progress import MAX_PROGRESS_BYTES, Progress
from adapter_operator.cache import Cache
from adapter_operator.names import Key
from adapter_operator.pods import AGENT_PORT
from adapter_operator.settings import Settings

TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_A_TIME = 16
LONGEST_PAUSE_SECONDS = 60.0
SECONDS_PER_JOB = 0.1
"""With very many jobs, questions and writes become rarer: together no more than ten a second."""

log = logging.getLogger(__name__)


def interval(settings: Settings, running: int) -> float:
    """Seconds between two questions to one job, and between two writes of its progress."""
    return max(settings.progress_seconds, SECONDS_PER_JOB * running)


class ProgressReader:
    """Puts what agents say into the cache, and tells `added` of news."""

    def __init__(
        self, cache: Cache, settings: Settings, added: Callable[[Key], None], clock: Callable[[], datetime]
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._added = added
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._slots = asyncio.Semaphore(AT_A_TIME)

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, asyncio.TaskGroup() as tasks:
            while True:
                running = [key for key, job in self._cache.jobs() if job.state == "Running"]
                now, pause = time.monotonic(), interval(self._settings, len(running))
                for known in [key for key in self._due if key not in set(running)]:
                    del self._due[known]
                    self._failures.pop(known, None)
                for key in running:
                    if self._due.setdefault(key, now) <= now:
                        self._due[key] = now + pause
                        tasks.create_task(self._ask(session, key))
                await asyncio.sleep(min(1.0, pause))

    async def _ask(self, session: aiohttp.ClientSession, key: Key) -> None:
        ip = self._host(key)
        if ip is None:
            return
        address = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._slots, session.get(f"http://{address}:{AGENT_PORT}/progress") as answer:
                progress = Progress.model_validate_json(await answer.content.read(MAX_PROGRESS_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(self._settings.progress_seconds * 2**failures, LONGEST_PAUSE_SECONDS)
            self._due[key] = time.monotonic() + pause
            log.debug("%s/%s: no progress from %s: %s", *key, ip, str(error) or type(error).__name__)
            return
        self._failures.pop(key, None)
        if self._cache.put_progress(key, progress, self._clock()):
            self._added(key)

    def _host(self, key: Key) -> str | None:
        job = self._cache.job(key)
        if job is None:
            return None
        pods = self._cache.observed(key).of(int(job.status.get("attempt", 0)))
        return next((pod.ip for pod in pods if pod.index == 0 and pod.ip is not None and pod.is_running), None)
