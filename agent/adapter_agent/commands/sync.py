"""The `sync` command: watches the trainer's output, uploads and commits, whatever storage does, until it is stopped."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Self

from adapter_agent import local_files
from adapter_agent.backoff import delays
from adapter_agent.checkpoints import claims
from adapter_agent.errors import CredentialsRefused, Fenced, StorageError, disk_error
from adapter_agent.options import SyncOptions
from adapter_agent.staging.encodings import Exchange
from adapter_agent.storage.store import Store
from adapter_agent.syncing.extras import Extras
from adapter_agent.syncing.pipeline import Pipeline
from adapter_agent.syncing.report import Report
from adapter_agent.syncing.serve import serving
from adapter_api.layout import ADDRESS_FILE
from adapter_api.progress import ExitCode

POLL_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)


def sync(options: SyncOptions) -> ExitCode:
    """Runs next to the trainer. After SIGTERM or SIGINT it finishes what is complete, and ends.

    Raises:
        StorageError: It cannot start; or, as Fenced, it must end because a newer attempt owns the output.
    """
    try:
        options.folders.output.mkdir(parents=True, exist_ok=True)
        begun = claims.required(options.folders, options.attempt)
        store = options.output.connect()
        cache = None if options.cache is None else options.cache.connect()
        stores = [store, *([] if cache is None else [cache])]
        if begun.checksums_ignored:
            for each in stores:
                each.compare_etags()
        report = Report(options.folders.output, store.uri, begun.warning)
        extras = Extras(store, options.folders.output, options.attempt, options.node, report.sent)
        encodings = None
        if cache is not None:
            encodings = Exchange(cache, options.folders.cache, options.folders.agent, report.sent)
        pipeline = Pipeline(store, begun, options, report, extras, lambda: datetime.now(UTC), encodings)
        with serving(*options.listen, report) as url, _Stop(options.drain_seconds, pipeline.describe_rest) as stop:
            address = f'{{"url": "{url}"}}\n'
            local_files.write_whole(options.folders.agent / ADDRESS_FILE, address.encode())
            log.info("serving %s/progress and %s/metrics", url, url)
            _loop(pipeline, report, stop, lambda: _renew(stores))
    except OSError as error:
        raise disk_error(error, f"syncing {options.folders.output}") from error
    return ExitCode.COMPLETE


def _renew(stores: Iterable[Store]) -> None:
    """Renews the credentials of all stores, whichever store refused them: all have the same."""
    for store in stores:
        with suppress(StorageError):
            store.renew_credentials()


def _loop(pipeline: Pipeline, report: Report, stop: "_Stop", renew_credentials: Callable[[], None]) -> None:
    retries = delays(0.5, LONGEST_RETRY_SECONDS)
    while True:
        # Read before looking: what was complete when the signal came is then seen by this turn.
        draining = stop.requested
        try:
            settled = pipeline.turn(last=draining)
        except Fenced:
            raise
        except (StorageError, OSError) as error:
            problem = error if isinstance(error, StorageError) else disk_error(error, "reading the trainer's output")
            log.warning("training continues; the upload is retried: %s", problem)
            report.failed(str(problem))
            if isinstance(problem, CredentialsRefused):
                renew_credentials()
            stop.wait(next(retries), draining=draining)
            continue
        report.recovered()
        retries = delays(0.5, LONGEST_RETRY_SECONDS)
        if draining and settled:
            return
        stop.wait(POLL_SECONDS, draining=draining)


class _Stop:
    """The request to end. The first signal starts draining, which has a time limit; the second ends the process at once."""

    def __init__(self, drain_seconds: float, describe_rest: Callable[[], str]) -> None:
        self._signalled = threading.Event()
        self._limit = threading.Timer(drain_seconds, self._end, args=(f"not done within {drain_seconds:g} s",))
        self._limit.daemon = True
        self._describe_rest = describe_rest

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._signalled.is_set()

    def wait(self, seconds: float, *, draining: bool) -> None:
        """Sleeps. The first signal ends the sleep."""
        if draining:
            threading.Event().wait(min(seconds, 1.0))
        else:
            self._signalled.wait(seconds)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signalled.is_set():
            self._end(f"second {signal.Signals(number).name}")
        self._signalled.set()
        self._limit.start()

    def _end(self, why: str) -> None:
        # Requests under way cannot be interrupted, and their threads would hold up an orderly exit.
        os.write(2, f"adapter_agent: error: {why}; {self._describe_rest()}\n".encode())
        os._exit(ExitCode.FAILED)
