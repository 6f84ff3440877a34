"""`python -m adapter_operator`: runs the operator until SIGTERM."""

import asyncio
import gc
import logging
import sys

from adapter_operator import handlers, logs
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.handlers import WatchEnded
from adapter_operator.leader import ClusterRestored
from adapter_operator.lease import LeaseLost
from adapter_operator.operator import Operator
from adapter_operator.settings import InvalidSettings, Settings, settings

DEEPEST = 50_000
"""Python's reader takes two to three calls for each level."""

log = logging.getLogger("adapter_operator")


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 when it had to end, 2 for settings that mean nothing."""
    try:
        given = settings()
    except InvalidSettings as error:
        print(f"adapter_operator: error: {error}", file=sys.stderr)
        return 2
    logs.start(given.log_level, given.log_format)
    try:
        asyncio.run(_run(given))
    except (LeaseLost, ClusterRestored, ClusterError, WatchEnded, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    except Exception:
        log.exception("the operator ends")
        return 1
    return 0


async def _run(given: Settings) -> None:
    # What was imported stays, and what is cached mostly does: looking through all of it again and again finds nothing.
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)
    # The API server stores JSON of 10,000 levels, kopf reads it with Python's own reader, and one job must not end that.
    sys.setrecursionlimit(DEEPEST)

    async def connect() -> Cluster:
        return await Cluster.connect(given.queries_per_second, given.burst, given.watch_silence_seconds)

    await handlers.run(Operator(connect, given), given)


if __name__ == "__main__":
    sys.exit(main())
