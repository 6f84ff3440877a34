"""What a store really does with conditions and checksums, asked in a bounded number of small requests as an attempt begins.

Nobody believes a store's documentation, or one lucky race: some check first and write then, some know a condition with one
request and not with another, some want the ETag as nobody else gives it. Each is found out by doing what a run does.
"""

import logging
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from adapter_agent.checkpoints import index
from adapter_agent.errors import (
    ConditionalWritesIgnored,
    EndpointUnreachable,
    ObjectMissing,
    PreconditionFailed,
    StorageError,
    Unsupported,
)
from adapter_agent.storage import clients, open_uploads
from adapter_agent.storage.answers import CHECKSUMS_REMEDY, CONDITIONS_REMEDY
from adapter_agent.storage.store import Store, checksum

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RACES, RACERS = 8, 8
PREFIX = "probe-"
LOSERS_SECONDS = 1.0
"""How long an answer is waited for in a race."""
_START_SECONDS = 10.0
"""How long racers wait for each other; whoever is late runs alone."""
_WRONG_ETAG = '"00000000000000000000000000000000"'
_CRC32C_OF_X = "qTxfkw=="

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """What a run has to know."""

    checksums_ignored: bool = False
    """The store takes a body whose checksum is wrong."""


def probe(store: Store, attempt: int) -> Findings:
    """Tries everything that a run relies on. Keys name the attempt, so that a later one knows what a killed probe has left.

    Raises:
        ConditionalWritesIgnored: a condition was ignored, or refused when it held; the message says which.
        Unsupported: the store does not know what is asked; the message says which field helps.
        Fenced: a newer attempt owns the output.
    """
    asked = _Probe(store, f"{PREFIX}{attempt}-{uuid.uuid4().hex}", open_uploads.Recorder(store, attempt))
    try:
        open_uploads.end_recorded(store, attempt, PREFIX)  # of a probe of this attempt that was killed
        ignored = asked.plain()
        fault = asked.conditions() if store.conditional else None
    finally:
        asked.clean_up()
    _refuse(store, attempt, fault)
    if ignored:
        log.warning(
            "%s at %s: the store accepts bodies with a wrong checksum; uploads are compared by MD5 and ETag instead",
            store.uri, store.endpoint,
        )  # fmt: skip
    return Findings(checksums_ignored=ignored)


def _refuse(store: Store, attempt: int, fault: str | None) -> None:
    if fault is None:
        return
    held = index.read(store)
    if held is not None and held.index.attempt > attempt:
        raise index.fenced(held.index, attempt, store)  # its sweep has removed the probe under our hands
    raise ConditionalWritesIgnored(
        f"{store.uri} at {store.endpoint}: the store does not honour conditional writes ({fault}), so two attempts could "
        f"overwrite each other's checkpoints, or commit nothing; use a store that does, or {CONDITIONS_REMEDY}"
    )


@contextmanager
def _blaming_conditions() -> Iterator[None]:
    """What a store refuses here, it has taken without a condition before."""
    try:
        yield
    except StorageError as error:
        if not _is_of_the_request(error):
            raise
        raise Unsupported(f"{error}; without a condition the store takes the same: {CONDITIONS_REMEDY}") from error


class _Race:
    """Creations of one object that go at one moment: all are prepared and signed before the first is sent."""

    def __init__(self, store: Store, key: str, client: "S3Client") -> None:
        self._store = store
        self._key = key
        self._client = client
        self._start = threading.Barrier(RACERS)
        self._waiting = threading.local()
        client.meta.events.register("before-send.s3.PutObject", self._hold, unique_id=f"{key} {id(client)}")

    def run(self, racer: int) -> int | None:
        """Takes part once; returns `racer` if it wins, and None if it loses, or is not told."""
        self._waiting.now = True
        try:
            with self._store.naming(self._key):
                self._client.put_object(
                    Bucket=self._store.bucket, Key=self._store.full_key(self._key), Body=_body(racer), IfNoneMatch="*"
                )
        except (PreconditionFailed, EndpointUnreachable):
            return None
        return racer

    def winners(self, told: Iterable[int | None]) -> int:
        """How many have won, of those who were told, and of those whom the object shows."""
        won = [racer for racer in told if racer is not None]
        if len(won) != 1:
            return len(won)
        try:
            return 1 if self._store.get(self._key)[0] == _body(won[0]) else 2
        except ObjectMissing:
            return 1  # a newer attempt has swept it away, and the claim will say so

    def _hold(self, **_: object) -> None:
        # Once for each racer, in the race that it takes part in: what the SDK repeats is late anyway.
        if self._waiting.__dict__.pop("now", False):
            with suppress(threading.BrokenBarrierError):
                self._start.wait(_START_SECONDS)


def _body(racer: int) -> bytes:
    return f"{racer}\n".encode()


class _Probe:
    def __init__(self, store: Store, name: str, recorder: open_uploads.Recorder) -> None:
        self._store = store
        self._recorder = recorder
        self._name = name
        self._parts = f"{name}-parts"
        self._raced = [f"{name}-{race}" for race in range(2 * RACES)]
        self._uploads: list[str] = []

    def clean_up(self) -> None:
        """Nothing of the probe stays."""
        for upload_id in self._uploads:
            with suppress(StorageError):
                self._store.abort_upload(self._parts, upload_id)
                self._recorder.ended(upload_id)
        self._store.delete(self._name, self._parts, *self._raced)

    def plain(self) -> bool:
        """Whether a wrong checksum is ignored; on the way, whether checksums are known at all."""
        store = self._store
        try:
            store.put(self._name, b"x")
        except StorageError as error:
            if not _is_of_the_request(error):
                raise
            with store.naming(self._name):
                store.client.put_object(Bucket=store.bucket, Key=store.full_key(self._name), Body=b"x")
            raise Unsupported(f"{error}; without a checksum the store takes the same: {CHECKSUMS_REMEDY}") from error
        try:
            with store.naming(self._name):
                store.client.put_object(
                    Bucket=store.bucket, Key=store.full_key(self._name), Body=b"x", ChecksumSHA256=checksum(b"y")
                )
        except EndpointUnreachable:
            raise
        except StorageError as error:
            log.debug("a wrong checksum is refused: %s", error)
            return False
        return store.dialect.checksums != "MD5"  # which puts the right one in the wrong one's place

    def conditions(self) -> str | None:
        """What is wrong with them; None if nothing is."""
        with _blaming_conditions():
            return self._matches() or self._completions() or self._races()

    def _races(self) -> str | None:
        # Some stores let losers wait for whole seconds. Nobody has to wait for them: a store that makes a loser wait while
        # the winner is answered has one after the other, and what they are told comes to no attempt.
        winners = self._race(self._raced[:RACES], LOSERS_SECONDS, 1)
        undecided = self._raced[RACES : RACES + winners.count(0)]
        if undecided:  # replies that were lost, or a store that answers slowly
            winners += self._race(undecided, clients.READ_TIMEOUT_SECONDS, clients.ATTEMPTS)
            if any(self._store.head(key) is None for key in undecided):
                raise EndpointUnreachable(
                    f"{self._store.uri} at {self._store.endpoint}: the store does not answer several requests at once; look "
                    "at its log, and the network between"
                )
        most = max(winners)
        return f"{most} of {RACERS} racing creations of one object succeeded" if most > 1 else None

    def _race(self, keys: Sequence[str], seconds: float, attempts: int) -> list[int]:
        """The number of winners of each race; all are held side by side."""
        with self._store.racing_client(RACES * RACERS, seconds, attempts) as client:
            races = [_Race(self._store, key, client) for key in keys]
            with ThreadPoolExecutor(RACES * RACERS, thread_name_prefix="race") as pool:
                begun = [[pool.submit(race.run, racer) for racer in range(RACERS)] for race in races]
            return [race.winners(racer.result() for racer in racers) for race, racers in zip(races, begun, strict=True)]

    def _matches(self) -> str | None:
        store = self._store
        with suppress(
            PreconditionFailed, ObjectMissing
        ):  # missing: a newer attempt has swept it away, and the claim will say so
            store.replace_if_match(self._name, b"replaced\n", _WRONG_ETAG)
            return "If-Match is ignored"
        found = store.head(self._name)
        if found is None:
            return None
        try:
            store.replace_if_match(self._name, b"matched\n", found.etag)
        except PreconditionFailed:
            now = store.head(self._name)
            if now is not None and now.etag == found.etag:
                return f"If-Match is refused with the right ETag, {found.etag}"
        except ObjectMissing:
            pass
        return None

    def _completions(self) -> str | None:
        """Files of several parts come to be by another request, which some stores let ignore conditions."""
        key, store = self._parts, self._store
        etag = store.put(key, b"there before\n")
        if self._completes({"IfNoneMatch": "*"}):
            return "CompleteMultipartUpload ignores If-None-Match"
        if self._completes({"IfMatch": _WRONG_ETAG}):
            return "CompleteMultipartUpload ignores If-Match"
        if not self._completes({"IfMatch": etag}):
            now = store.head(key)
            if now is not None and now.etag == etag:
                return "CompleteMultipartUpload refuses If-Match with the right ETag"
        return None

    def _completes(self, condition: dict[str, str]) -> bool:
        """Whether an upload of one byte becomes the object under a condition."""
        store, key = self._store, self._parts
        place: Any = {"Bucket": store.bucket, "Key": store.full_key(key)}
        with store.naming(key):
            upload_id = store.client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32C")["UploadId"]
            self._uploads.append(upload_id)
            self._recorder.begun(key, upload_id)
            part = store.client.upload_part(
                **place, UploadId=upload_id, PartNumber=1, Body=b"x", ChecksumCRC32C=_CRC32C_OF_X
            )
            parts: Any = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32C": _CRC32C_OF_X}]
            try:
                store.client.complete_multipart_upload(
                    **place,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                    **condition,  # type: ignore[arg-type]
                )
            except ClientError as error:
                refused = error
            else:
                return True
        try:
            with store.naming(key):
                raise refused
        except (PreconditionFailed, ObjectMissing):
            return False


def _is_of_the_request(error: StorageError) -> bool:
    """Whether a store means a request as such, which is answered so each time."""
    return type(error) in (StorageError, Unsupported)
