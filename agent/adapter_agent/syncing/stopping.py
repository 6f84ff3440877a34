"""A node that was told to stop: until when it has time, and which of its checkpoints still fits in that."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from adapter_agent import local_files

STOP_FILE = "stop.json"


def announce(folders: local_files.Folders, seconds: float) -> None:
    """Tells the agent beside the trainer, which is signalled only after the trainer has ended."""
    local_files.write_whole(folders.agent / STOP_FILE, json.dumps({"deadline": time.time() + seconds}).encode())


def withdraw(folders: local_files.Folders) -> None:
    """Removes what a stop before this start announced."""
    (folders.agent / STOP_FILE).unlink(missing_ok=True)


def seconds_left(folder: Path) -> float | None:
    """Until the announced end, possibly negative; None where none was announced."""
    try:
        deadline = float(json.loads((folder / STOP_FILE).read_bytes())["deadline"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return deadline - time.time()


def next_upload(pending: Mapping[int, int], bytes_per_second: float | None, seconds: float) -> int | None:
    """The checkpoint to upload next when there are `seconds` left: the newest that fits.

    If none fits, or no upload has been measured, the oldest: part of it may be there already, and storage may be faster
    than it was.

    Args:
        pending: Bytes by step of what has not been uploaded.
        bytes_per_second: As the last upload went.
        seconds: Until the end.
    """
    if not pending:
        return None
    for step in sorted(pending, reverse=True):
        if bytes_per_second and pending[step] <= bytes_per_second * seconds:
            return step
    return min(pending)
