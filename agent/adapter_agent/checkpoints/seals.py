"""Which pass of the training processes a local checkpoint folder is of, as its trainer has sealed it."""

from pathlib import Path

from adapter_agent.errors import Damaged
from adapter_agent.storage import content


def pass_of(folder: Path) -> str:
    """The pass that saved a checkpoint's folder, as its trainer has sealed it; empty where the trainer does not say."""
    seals = sorted(folder.glob("complete-rank-*.json"))
    passes = {str(content.read_json_object(seal.read_bytes(), str(seal)).get("pass", "")) for seal in seals}
    if len(passes) > 1:
        raise Damaged(f"{folder}: holds files of different passes")
    return next(iter(passes), "")
