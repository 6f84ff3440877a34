"""Asks node 0's agent of every running job how far it is."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
from pydantic import ValidationError

from adapter_api.progress import MAX_PROGRESS_BYTES, Progress
from adapter_api.scalars import visible
from adapter_operator.names import AGENT_PORT, Key
from adapter_operator.observe.cache import Cache
from adapter_operator.settings import Settings

TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_A_TIME = 16
MAX_WHY, MAX_SHOWN = 200, 2048
"""Characters that are kept of what went wrong, and of what an agent says."""
MAX_FAILURES = 10
OK, IPV6 = 200, 6
LONGEST_PAUSE_SECONDS = 60.0
SECONDS_PER_JOB = 0.1
"""With very many jobs, questions and writes become rarer: together no more than ten a second."""

log = logging.getLogger(__name__)


def interval(settings: Settings, running: int) -> float:
    """Seconds between two questions to one job, and between two writes of its progress."""
    return max(settings.progress_seconds, SECONDS_PER_JOB * running)


class NoAnswer(Exception):  # noqa: N818 - it reads as the fact that it states
    """An agent has not said how far its run is."""


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
        async with new_session() as session, asyncio.TaskGroup() as tasks:
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
        try:
            async with self._slots:
                progress = await ask(session, address_of(ip))
        except Exception as error:  # noqa: BLE001 - a pod answers whatever its image likes: that is its job's failure alone
            why = visible((str(error) or type(error).__name__).splitlines()[0][:MAX_WHY])
            self._has_failed(key, why)
            return
        self._failures.pop(key, None)
        if self._cache.put_progress(key, progress, self._clock()):
            self._added(key)

    def _has_failed(self, key: Key, why: str) -> None:
        failures = self._failures[key] = min(self._failures.get(key, 0) + 1, MAX_FAILURES)
        pause = min(self._settings.progress_seconds * 2**failures, LONGEST_PAUSE_SECONDS)
        self._due[key] = time.monotonic() + pause
        log.debug("%s/%s: no progress: %s", *key, why)
        if self._cache.put_unreachable(key, why, self._clock()):
            self._added(key)

    def _host(self, key: Key) -> str | None:
        job = self._cache.job(key)
        if job is None:
            return None
        pods = self._cache.observed(key).of(int(job.status.get("attempt", 0)))
        return next((pod.ip for pod in pods if pod.index == 0 and pod.ip is not None and pod.is_running), None)


def new_session() -> aiohttp.ClientSession:
    """For questions to pods, none of which is trusted: no redirects, cookies, proxies or compression, and short headers."""
    return aiohttp.ClientSession(
        timeout=TIMEOUT, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )  # fmt: skip


def address_of(ip: str) -> str:
    """Where the agent of a pod is asked.

    Raises:
        NoAnswer: no pod is there: whoever may edit a pod's status must not choose whom the operator talks to.
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(ip)
    meant = getattr(address, "ipv4_mapped", None) or address
    if meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        raise NoAnswer(f"{ip} is not a pod's address")
    host = f"[{ip}]" if address.version == IPV6 else ip
    return f"http://{host}:{AGENT_PORT}/progress"


async def ask(session: aiohttp.ClientSession, address: str) -> Progress:
    """What an agent says.

    Raises:
        NoAnswer: nothing that can be used; why.
        Exception: whatever a library makes of what came instead.
    """
    async with session.get(address, allow_redirects=False) as answer:
        if answer.status != OK:
            raise NoAnswer(f"it answers with status {answer.status}")
        said = bytearray()
        async for part in answer.content.iter_any():
            said += part
            if len(said) > MAX_PROGRESS_BYTES:
                raise NoAnswer(f"it answers with more than {MAX_PROGRESS_BYTES} bytes")
    try:
        return readable(Progress.model_validate_json(bytes(said)))
    except ValidationError as error:
        raise NoAnswer(f"its answer is not valid progress ({error.error_count()} faults)") from error


def readable(progress: Progress) -> Progress:
    """The same with texts that can be shown to anybody."""
    shown: dict[str, Any] = {
        name: visible(text)[:MAX_SHOWN]
        for name in ("upload_error", "restore_warning")
        if (text := getattr(progress, name)) is not None
    }
    if progress.checkpoint is not None:
        shown["checkpoint"] = progress.checkpoint.model_copy(
            update={"uri": visible(progress.checkpoint.uri)[:MAX_SHOWN]}
        )
    return progress.model_copy(update=shown)
