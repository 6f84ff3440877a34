"""What is committed at an output address, read and changed through the agent's library."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from adapter_agent.checkpoints import adopt, claims, fetch, index, retention, tensors, verify
from adapter_agent.checkpoints.adopt import Adopted
from adapter_agent.checkpoints.tensors import Tensor
from adapter_agent.checkpoints.verify import Fault
from adapter_agent.errors import NothingThere
from adapter_agent.storage.dialect import dialect_of
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import CheckpointIndex, CheckpointManifest, FileEntry, IndexEntry, Removal
from adapter_api.places import S3Location

FOR_EVER = datetime.max.replace(tzinfo=UTC)
"""A time at which everything that has been removed is due."""


class Committed:
    """The committed checkpoints of one output. Every method raises a `StorageError` when storage cannot be used."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self.store = self.beside(location.uri)

    def beside(self, uri: str) -> Store:
        """Another address, reached in the same way."""
        return Store.connect(
            uri, self._location.endpoint_url, self._location.region, dialect=dialect_of(self._location)
        )

    @property
    def uri(self) -> str:
        """The output address."""
        return self.store.uri

    def uri_of(self, checkpoint: IndexEntry | Removal) -> str:
        """The address of a checkpoint."""
        return self.store.uri_of(checkpoint.folder)

    def index(self) -> CheckpointIndex | None:
        """The index; None where there is none yet."""
        held = index.read(self.store)
        return None if held is None else held.index

    def entries(self) -> tuple[IndexEntry, ...]:
        """Every committed checkpoint, newest last.

        Raises:
            NothingThere: nothing has ever been committed or claimed at this address.
        """
        current = self.index()
        if current is None:
            raise NothingThere(
                f"{self.uri} at {self.store.endpoint} holds no checkpoints.json; correct the address, or if it was lost: "
                f"atj checkpoints adopt {self.uri}"
            )
        return current.checkpoints

    def newest(self) -> IndexEntry | None:
        """The newest committed checkpoint."""
        current = self.index()
        return None if current is None else current.newest

    def entry(self, step: int | None) -> IndexEntry:
        """The committed checkpoint of a step, by default the newest.

        Raises:
            NothingThere: there is none.
        """
        return fetch.committed_entry(self.store, step)

    def manifest(self, entry: IndexEntry) -> CheckpointManifest:
        """The manifest of a committed checkpoint, verified against the index."""
        return fetch.read_manifest(self.store, entry).manifest

    def fetch(self, step: int, folder: Path, on_bytes: Callable[[int], None]) -> CheckpointManifest:
        """Downloads a checkpoint, every byte verified, to `folder`, which appears when it is whole."""
        return fetch.fetch_checkpoint(self.store, step, folder, on_bytes)

    def faults(self, entry: IndexEntry, on_bytes: Callable[[int], None]) -> list[Fault]:
        """What of a checkpoint is not as it was committed, every byte read."""
        return verify.verify(self.store, entry, on_bytes)

    def tensors(
        self, entry: IndexEntry, file: FileEntry, on_bytes: Callable[[int], None] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of a file; with `on_bytes` its bytes are read and digested, too."""
        return tensors.tensors(self.store, f"{entry.folder}/{file.path}", file.size, on_bytes)

    def pin(self, before: IndexEntry, *, pinned: bool) -> bool:
        """Sets or takes away the pin of a checkpoint; returns whether that changed anything.

        Raises:
            NothingThere: there is no such checkpoint.
        """

        def with_pin(current: CheckpointIndex) -> CheckpointIndex:
            entries = tuple(
                entry.model_copy(update={"pinned": pinned}) if entry.step == before.step else entry
                for entry in current.checkpoints
            )
            return current.model_copy(update={"checkpoints": entries})

        after = index.change(self.store, None, with_pin).entry(before.step)
        if after is None:
            raise NothingThere(f"{self.uri_of(before)} was removed meanwhile")
        return before.pinned != after.pinned

    def in_use(self) -> int | None:
        """The checkpoint that the attempt which owns the output has started from, as it has announced."""
        current = self.index()
        source = None if current is None else claims.announced_source(self.store, current)
        return None if source is None or source.uri != self.uri else source.step

    def delete(self, steps: Collection[int], now: datetime) -> None:
        """Deletes checkpoints: out of the index, then manifest, then data. Interrupted, the next call goes on with it."""
        index.change(self.store, None, lambda current: current.without(steps, now))
        self.delete_due(now)

    def adoptable_bytes(self) -> int:
        """Size of the checkpoints that an index could be rebuilt from.

        Raises:
            ContentConflict: there is an index.
        """
        return sum(each.entry.bytes for each in adopt.candidates(self.store)[0])

    def adopt(self, on_bytes: Callable[[int], None]) -> Adopted:
        """Rebuilds the index, where it is lost or damaged, from the checkpoints that verify, every byte read.

        Raises:
            ContentConflict: there is an index.
            NothingThere: nothing there is this product's.
        """
        return adopt.adopt(self.store, on_bytes)

    def delete_due(self, now: datetime) -> tuple[Removal, ...]:
        """Deletes what left the index before, and may not be fetched any more at `now`; returns what that was."""
        current = index.current(self.store, None)
        due = tuple(removal for removal in current.removals if removal.delete_after <= now)
        if due:
            retention.delete_due(self.store, None, now)
        return due
