"""metrics.jsonl: what a run has reported, a line of JSON each; read by people, by report.html and by a resumed run."""

import json
from pathlib import Path
from typing import Any

from adapter_api.layout import CHECKPOINT_HISTORY_FILE, HISTORY_FILE
from adapter_trainer.files import replace_text

"""The same in a checkpoint, as far as it goes there."""
Line = dict[str, Any]
"""Always with `step`; and with `loss`, `evaluation`, `pauses` or `start`."""


class History:
    """The file in an output folder. Used by rank 0 alone."""

    def __init__(self, output: Path) -> None:
        self.file = output / HISTORY_FILE

    def add(self, line: Line) -> None:
        """Appends a line."""
        with self.file.open("a", encoding="utf-8") as history:
            history.write(json.dumps(line) + "\n")

    def resume(self, step: int, checkpoint: Path | None) -> None:
        """Takes what was reported up to `step`: what came after it is about to be repeated.

        From the checkpoint where that knows more: a run that goes on elsewhere finds an empty folder, and one whose
        rank 0 has moved finds there what another one of its processes reported.
        """
        own = [line for line in read_history(self.file) if line["step"] <= step]
        kept = [] if checkpoint is None else read_history(checkpoint / CHECKPOINT_HISTORY_FILE)
        found = max(own, [line for line in kept if line["step"] <= step], key=len)
        if found or self.file.exists():
            replace_text(self.file, "".join(json.dumps(line) + "\n" for line in found))


def read_history(file: Path) -> list[Line]:
    """The lines of a history; without the one that a killed process was writing. Empty where there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            lines.append(found)
    return lines
