"""outcome.json: how a node's training ended, for whoever reads the folder afterwards; imports nothing slow."""

from pathlib import Path

from adapter_api.layout import OUTCOME_FILE
from adapter_api.progress import Outcome
from adapter_trainer.files import replace_text

EARLIER_FILE = ".outcome-before.json"
"""The outcome before the newest one, of processes that have been started anew in place."""


def put_aside(output: Path, *, keeps: bool) -> None:
    """Takes the outcome away: as the earlier one if `keeps`, else for good."""
    if keeps and (output / OUTCOME_FILE).exists():
        (output / OUTCOME_FILE).replace(output / EARLIER_FILE)
        return
    for name in (OUTCOME_FILE, EARLIER_FILE):
        (output / name).unlink(missing_ok=True)


def is_repeated(output: Path, outcome: Outcome) -> bool:
    """Whether the processes have now failed twice in the same way at the same step: they would do so again.

    That another process was lost says nothing of this one.
    """
    earlier = read_outcome(output, EARLIER_FILE)
    if earlier is None or outcome.reason == "CommunicationFailed":
        return False
    return _way(earlier) == _way(outcome)


def _way(outcome: Outcome) -> tuple[int, str, str, int]:
    return outcome.exit_code, outcome.reason, outcome.message, outcome.step


def write_outcome(output: Path, outcome: Outcome) -> None:
    """Writes the outcome into an output folder."""
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / OUTCOME_FILE, outcome.model_dump_json(by_alias=True))


def read_outcome(output: Path, name: str = OUTCOME_FILE) -> Outcome | None:
    """The outcome in an output folder, if there is one."""
    try:
        return Outcome.model_validate_json((output / name).read_bytes())
    except (OSError, ValueError):
        return None
