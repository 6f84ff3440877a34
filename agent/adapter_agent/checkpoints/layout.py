"""Where checkpoints and attempts' announcements lie below an output address, found by their names alone."""

import re
from collections.abc import Iterator

from adapter_agent.storage.store import Store
from adapter_api.checkpoint import ATTEMPTS, step_of

_ANNOUNCED = re.compile(rf"{ATTEMPTS}([0-9]{{1,18}})\.json")


def checkpoint_folders(store: Store, *, scoped: bool) -> Iterator[tuple[int, str]]:
    """Step and key of every folder that has a checkpoint's name, whoever made it; `scoped` are those below attempts/<n>/."""
    if not scoped:
        yield from ((step, name) for name in store.folders() if (step := step_of(name)) is not None)
        return
    keys = {tuple(facts.key.split("/")[:3]) for facts in store.list(ATTEMPTS) if facts.key.count("/") > 2}
    yield from ((step, "/".join(parts)) for parts in keys if (step := step_of(parts[2])) is not None)


def announcement_key(attempt: int) -> str:
    """Key of what an attempt says of its start."""
    return f"{ATTEMPTS}{attempt}.json"


def announced_attempts(store: Store) -> list[int]:
    """Attempts that have said where they start."""
    return [int(matched[1]) for facts in store.list(ATTEMPTS) if (matched := _ANNOUNCED.fullmatch(facts.key))]
