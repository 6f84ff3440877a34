"""The index on a store without conditional writes: every attempt writes objects of its own, and nobody else's.

    attempts/<attempt>/intent           this attempt is about to take over: older ones commit nothing from here on
    attempts/<attempt>/index-<n>.json   the whole index after its n-th change; the highest n counts

The index of the newest attempt that has one counts. Its first holds what counted before, which is the cutoff: what an
older attempt writes later is in no index that anyone reads. No commit that was acknowledged is lost: the intent is written
before the older attempt's index is read, and whoever commits looks for newer intents before believing in the commit.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from pydantic import ValidationError

from adapter_agent.errors import EndpointUnreachable, IndexDamaged, ObjectMissing
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import ATTEMPTS, CheckpointIndex

_KEY = re.compile(rf"{ATTEMPTS}(\d{{1,18}})/(?:intent|index-(\d{{1,18}})\.json)")
_LOOKS = 10
"""At a listing whose newest index is replaced before it is read."""


@dataclass(frozen=True)
class Written:
    """Numbers of the indexes of each attempt that has announced itself."""

    numbers: dict[int, list[int]]

    @property
    def newest(self) -> int | None:
        """The newest attempt that wants the output."""
        return max(self.numbers, default=None)

    @property
    def valid(self) -> int | None:
        """The newest attempt that has an index: what it says counts."""
        return max((attempt for attempt, numbers in self.numbers.items() if numbers), default=None)


def look(store: Store) -> Written:
    """What is there; an attempt that has only announced itself has no numbers."""
    found: dict[int, list[int]] = defaultdict(list)
    for facts in store.list(ATTEMPTS):
        if (matched := _KEY.fullmatch(facts.key)) is not None:
            numbers = found[int(matched[1])]
            if matched[2] is not None:
                numbers.append(int(matched[2]))
    return Written({attempt: sorted(numbers) for attempt, numbers in found.items()})


def read(store: Store) -> tuple[Written, CheckpointIndex | None]:
    """What is there, and the index that counts; None where there is none yet.

    Raises:
        IndexDamaged: it is not an index.
    """
    for _ in range(_LOOKS):
        written = look(store)
        if (attempt := written.valid) is None:
            return written, None
        key = _key(attempt, written.numbers[attempt][-1])
        try:
            return written, CheckpointIndex.model_validate_json(store.get(key)[0])
        except ObjectMissing:
            continue  # replaced by a newer one
        except ValidationError:
            raise IndexDamaged(
                f"{store.uri_of(key)}: is not an index of checkpoints; restore the object, or rebuild it from the "
                f"checkpoints that verify: atj checkpoints adopt {store.uri}"
            ) from None
    raise EndpointUnreachable(f"{store.uri}: its index changes faster than it can be read; try again")


def announce(store: Store, attempt: int) -> None:
    """Tells older attempts that they are over."""
    store.put(f"{ATTEMPTS}{attempt}/intent", b"")


def write(store: Store, index: CheckpointIndex, written: Written) -> None:
    """Writes the owner's next index, then removes those before it."""
    there = written.numbers.get(index.attempt, [])
    highest = there[-1] if there else 0
    # A process that was killed may have had one write under way, which may arrive after ours.
    number = max(highest + 1 if store.last_number is None else highest, store.last_number or 0) + 1
    store.last_number = number
    store.put(_key(index.attempt, number), index.model_dump_json(indent=2).encode() + b"\n")
    store.delete(*(_key(index.attempt, each) for each in there))


def keys(written: Written, attempt: int) -> list[str]:
    """Keys of an attempt's indexes, the oldest first."""
    return [_key(attempt, number) for number in written.numbers.get(attempt, [])]


def _key(attempt: int, number: int) -> str:
    return f"{ATTEMPTS}{attempt}/index-{number}.json"
