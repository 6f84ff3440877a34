"""Outputs without an index that hold what only an index could explain: nothing may be written there."""

from adapter_agent.checkpoints import layout
from adapter_agent.errors import IndexLost
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import INDEX_KEY


def refuse(store: Store, attempt: int) -> None:
    """Without an index nothing tells this run's checkpoints from other programs', or whether a newer attempt is there.

    Raises:
        IndexLost: there are checkpoints of whoever, or a newer attempt.
    """
    folders = [
        folder for scoped in (False, True) for _, folder in sorted(layout.checkpoint_folders(store, scoped=scoped))
    ]
    # Some stores go on listing a folder that has become empty.
    found = next((folder for folder in folders if store.holds_any(f"{folder}/")), None)
    newest = max(layout.announced_attempts(store), default=0)
    if found is None and newest > attempt:
        found = layout.announcement_key(newest)
    if found is not None:
        raise IndexLost(
            f"{store.uri} holds {found}, and no {INDEX_KEY} that says what it is; nothing has been changed there. Give this "
            "run an output address of its own. If it is this product's, and its index was lost, rebuild that from the "
            f"checkpoints that verify: atj checkpoints adopt {store.uri}"
        )
