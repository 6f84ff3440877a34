"""`python -m adapter_operator`: runs the operator until SIGTERM."""

import asyncio
import gc
import logging
import signal
import sys

from adapter_operator import logs
from adapter_operator.cluster import Cluster
from adapter_operator.lease import LeaseLost
from adapter_operator.operator import ClusterRestored, Operator
from adapter_operator.settings import InvalidSettings, Settings, settings

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
    except (LeaseLost, ClusterRestored) as error:
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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cluster = await Cluster.connect(given.queries_per_second, given.burst, given.watch_silence_seconds)
    try:
        await Operator(cluster, given).run(stop)
    finally:
        await cluster.close()


if __name__ == "__main__":
    sys.exit(main())
