"""A process that torchrun starts again in place does not try what cannot help."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_api.progress import ExitCode, Outcome
from adapter_trainer.outcome import put_aside, read_outcome, write_outcome
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


def failed(message: str = "ValueError: no", step: int = 3, reason: str = "Failed") -> Outcome:
    told = {"exit_code": 1, "reason": reason, "message": message, "step": step, "rank": 0, "at": datetime.now(UTC)}
    return Outcome.model_validate(told)


@pytest.mark.parametrize(
    ("first", "second", "again"),
    [
        (failed(), failed(), False),
        (failed(), failed(step=4), True),
        (failed(), failed("OSError: gone"), True),
        (failed(reason="NonFiniteLoss"), failed(reason="NonFiniteLoss"), False),
        (failed(reason="CommunicationFailed"), failed(reason="CommunicationFailed"), True),
    ],
    ids=["the same", "later", "another", "a loss that is not finite", "of another process's loss"],
)
def test_a_fault_that_has_come_twice_is_not_tried_a_third_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Outcome, second: Outcome, *, again: bool
) -> None:
    write_outcome(tmp_path, first)
    put_aside(tmp_path, keeps=True)
    write_outcome(tmp_path, second)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    code = main(["--config", str(tmp_path / "absent.yaml"), "--output_dir", str(tmp_path)])
    assert code == (ExitCode.INVALID if again else ExitCode.FAILED)
    ended = read_outcome(tmp_path)
    assert ended is not None
    assert (ended.reason == "InvalidConfig") == again


def test_a_new_launch_knows_of_no_earlier_one(tmp_path: Path) -> None:
    write_outcome(tmp_path, failed())
    put_aside(tmp_path, keeps=True)
    write_outcome(tmp_path, failed())
    put_aside(tmp_path, keeps=False)
    assert list(tmp_path.iterdir()) == []
