"""A process that torchrun starts again in place does not try what cannot help."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_api.progress import ExitCode, Outcome
from adapter_trainer.outcome import read_outcome, write_outcome
from adapter_trainer.train import main


@pytest.mark.parametrize(
    ("code", "reason"),
    [(ExitCode.INVALID, "InvalidConfig"), (ExitCode.STOPPED, "Stopped"), (ExitCode.FAILED, "DiskFull")],
)
def test_a_restart_in_place_ends_as_the_start_did_where_it_cannot_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ExitCode, reason: str
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    told = {"exit_code": code, "reason": reason, "message": "why", "step": 3, "rank": 0, "at": datetime.now(UTC)}
    before = Outcome.model_validate(told)
    write_outcome(tmp_path, before)
    assert main(["--config", "not-read.yaml", "--output_dir", str(tmp_path)]) == code
    assert read_outcome(tmp_path) == before
