"""Progress as a user reads it: step, loss, images/s, time left, and what happened."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from adapter_api.progress import CheckpointMark, Progress
from atj.machine import progress_display
from atj.machine.progress_display import display_on, line

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TRAINING = Progress(
    phase="training",
    step=40,
    total_steps=200,
    loss=0.12345,
    images_per_second=98.76,
    eta_seconds=200,
    updated_at=NOW,
    checkpoint=CheckpointMark(step=20, uri="s3://a/b/checkpoint-20", committed_at=NOW, bytes=1),
)


def test_line_holds_all_figures_with_their_units() -> None:
    assert line(2, TRAINING, "starting") == (
        "attempt 2  step 40/200  20%  loss 0.1235  98.8 images/s  ETA 3 min 20 s  checkpoint 20"
    )


def test_line_says_what_is_waited_for_without_progress() -> None:
    assert line(1, None, "restoring") == "attempt 1  restoring"


def test_failing_upload_is_told_while_training_goes_on() -> None:
    progress = TRAINING.model_copy(update={"upload_error": "the endpoint cannot be reached"})
    assert line(1, progress, "starting").endswith("upload: the endpoint cannot be reached")


def test_pipe_gets_plain_lines_and_no_line_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0.0)
    stream = io.StringIO()
    with display_on(Console(file=stream)) as display:
        display.say("Attempt 1 [of] 4")
        display.show(1, TRAINING, "starting")
        display.show(1, TRAINING, "starting")
    lines = stream.getvalue().splitlines()
    assert lines == ["Attempt 1 [of] 4", line(1, TRAINING, "starting")]
    assert "\x1b" not in stream.getvalue()


def test_terminal_shows_a_bar_above_the_figures() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with console.capture() as captured:
        console.print(progress_display.picture(1, TRAINING, "starting"))
    first, second = captured.get().splitlines()
    assert "step 40/200" in first
    assert "20%" in first
    assert "loss 0.1235" in second
