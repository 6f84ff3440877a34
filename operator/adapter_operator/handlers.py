"""kopf's handlers: it runs the process, watches AdapterTrainingJobs, and tells the operator when to begin and when to end."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import kopf

from adapter_api.job import GROUP, PLURAL, VERSION
from adapter_operator.cluster import TIMEOUT_SECONDS, WATCH_SECONDS, ClusterError
from adapter_operator.observe.watch import pause
from adapter_operator.operator import Operator
from adapter_operator.settings import Settings

LOGIN_SECONDS = 1.0
"""Between two logins: one that is refused at once must not become a thousand a second."""
LONGEST_SESSION = timedelta(seconds=WATCH_SECONDS)
"""After which kopf logs in anew, and so reads a token that has been rotated.

It makes each login another one, too: kopf takes none that is equal to one that was refused, were it by mistake.
"""


class WatchEnded(Exception):  # noqa: N818 - it reads as the fact that it states
    """kopf has given up; a new process begins anew."""


class Backoffs:
    """Seconds between kopf's tries of one request: without end, growing, spread. It has no length, which kopf takes for infinite."""

    def __iter__(self) -> Iterator[float]:
        """From the first try on."""
        failures = 0
        while True:
            yield pause(failures)
            failures += 1


class NoDifferences(kopf.DiffBaseStorage):
    """Keeps no copy of an object to compare the next one with: nobody asks what has changed."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Nothing."""

    def store(self, **_: Any) -> None:
        """Nowhere: kopf is to write nothing."""


def options(settings: Settings) -> kopf.OperatorSettings:
    """What kopf is told: it never gives up a server that is away, and it writes nothing."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # the Lease says who acts; peering is no lock, and writes
    chosen.posting.enabled = False
    chosen.scanning.disabled = True  # watching namespaces and CRDs takes rights that the operator does without
    chosen.persistence.diffbase_storage = NoDifferences()
    chosen.watching.server_timeout = WATCH_SECONDS
    chosen.watching.connect_timeout = TIMEOUT_SECONDS
    chosen.watching.inactivity_timeout = settings.watch_silence_seconds
    chosen.networking.request_timeout = TIMEOUT_SECONDS
    chosen.networking.connect_timeout = TIMEOUT_SECONDS
    chosen.networking.error_backoffs = Backoffs()
    return chosen


def registry(operator: Operator) -> kopf.OperatorRegistry:
    """The handlers of one operator."""
    made = kopf.OperatorRegistry()
    logged_in = float("-inf")

    @kopf.on.startup(registry=made)
    async def start(**_: Any) -> None:
        try:
            await operator.start()
        except Exception as error:
            # Any other error is tried again by kopf, in a minute, with no /healthz meanwhile.
            raise kopf.PermanentError(str(error)) from error

    @kopf.on.login(registry=made)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        nonlocal logged_in
        await asyncio.sleep(max(0.0, logged_in + LOGIN_SECONDS - time.monotonic()))
        logged_in = time.monotonic()
        try:
            server, session = await operator.session()
        except (ClusterError, OSError) as error:
            raise kopf.TemporaryError(f"no credentials: {error}", delay=LOGIN_SECONDS) from error
        return kopf.AiohttpSession(
            server=server, aiohttp_session=session, expiration=datetime.now(UTC) + LONGEST_SESSION
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made)
    async def tell(event: kopf.RawEvent, **_: Any) -> None:
        operator.on_job(event["type"], cast("dict[str, Any]", event["object"]))

    @kopf.on.cleanup(registry=made, errors=kopf.ErrorsMode.PERMANENT)
    async def stop(**_: Any) -> None:
        await operator.stop()

    return made


async def run(operator: Operator, settings: Settings) -> None:
    """Until SIGTERM or SIGINT.

    Raises:
        WatchEnded: kopf has given up.
        Exception: what the operator has ended by; whoever starts the process again starts anew.
    """
    namespace = settings.watch_namespace
    try:
        await kopf.operator(
            registry=registry(operator), settings=options(settings), stop_flag=operator.ended,
            clusterwide=not namespace, namespaces=[namespace] if namespace else [],
        )  # fmt: skip
    except Exception as error:
        operator.tell_why()
        raise WatchEnded(f"the watch of AdapterTrainingJobs has ended, a new process starts over: {error}") from error
    operator.tell_why()
