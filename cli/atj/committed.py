"""What is committed at an output address, read through the agent's library."""

from collections.abc import Callable
from pathlib import Path

from adapter_agent import index, restore
from adapter_agent.errors import NothingThere
from adapter_agent.store import Store
from adapter_api.checkpoint import CheckpointIndex, CheckpointManifest, IndexEntry, folder_name
from adapter_api.job import S3Location


class Committed:
    """The committed checkpoints of one output. Every method raises a `StorageError` when storage cannot be used."""

    def __init__(self, location: S3Location) -> None:
        self.store = Store.connect(location.uri, location.endpoint_url, location.region)

    @property
    def uri(self) -> str:
        """The output address."""
        return self.store.uri

    def uri_of(self, step: int) -> str:
        """The address of a checkpoint."""
        return self.store.uri_of(folder_name(step))

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
            raise NothingThere(f"{self.uri} at {self.store.endpoint} holds no checkpoints.json; correct the address")
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
        return restore.committed_entry(self.store, step)

    def manifest(self, entry: IndexEntry) -> CheckpointManifest:
        """The manifest of a committed checkpoint, verified against the index."""
        return restore.read_manifest(self.store, entry).manifest

    def fetch(self, step: int, folder: Path, on_bytes: Callable[[int], None]) -> CheckpointManifest:
        """Downloads a checkpoint, every byte verified, to `folder`, which appears when it is whole."""
        return restore.fetch_checkpoint(self.store, step, folder, on_bytes)
