"""outcome.json: how a node's training ended, for whoever reads the folder afterwards; imports nothing slow."""

from pathlib import Path

from adapter_api.progress import OUTCOME_FILE, Outcome
from adapter_trainer.files import replace_text


def write_outcome(output: Path, outcome: Outcome) -> None:
    """Writes the outcome into an output folder."""
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / OUTCOME_FILE, outcome.model_dump_json(by_alias=True))


def read_outcome(output: Path) -> Outcome | None:
    """The outcome in an output folder, if there is one."""
    try:
        return Outcome.model_validate_json((output / OUTCOME_FILE).read_bytes())
    except (OSError, ValueError):
        return None
