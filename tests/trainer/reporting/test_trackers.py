"""Trackers go on with a run that is resumed: its curves do not run back, and it is one run."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from adapter_trainer.training import setup
from tests.trainer.support import runs, tiny

pytestmark = pytest.mark.process

LATEST = ("--resume_from_checkpoint", "latest")


def settings(data: Path, tracker: str, steps: int) -> tiny.Settings:
    changes = {
        "optimization": {"max_train_steps": steps},
        "checkpoint": {"save_steps": 2},
        "logging": {"report_to": [tracker], "project_name": "curves"},
    }
    return tiny.settings(data, changes)


def test_tensorboards_curves_do_not_run_back(data: Path, tmp_path: Path) -> None:
    """Steps 3 to 5 were reported and lost with what came after the checkpoint."""
    output = tmp_path / "output"
    assert runs.train_here(settings(data, "tensorboard", 5), output) == 0
    for step in (4, 5):
        (output / f"checkpoint-{step}").rename(tmp_path / f"lost-{step}")
    assert runs.train_here(settings(data, "tensorboard", 6), output, *LATEST) == 0
    curve = EventAccumulator(str(output / "logs" / "curves")).Reload().Scalars("loss")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_is_one_run_of_wandb_and_a_new_one_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    output = tmp_path / "output"

    def run_id(folder: Path, resume: str | None) -> str:
        options = setup.RunOptions(folder, resume, lambda _: None)
        run = setup.prepare(tiny.configuration(settings(data, "wandb", 3)), options)
        tracker = run.state.accelerator.get_tracker("wandb", unwrap=True)
        found = str(tracker.id)
        assert found == run.state.run_id
        run.state.accelerator.end_training()
        return found

    assert runs.train_here(settings(data, "wandb", 2), output) == 0
    first = run_id(output, "latest")
    assert run_id(output, "latest") == first
    assert run_id(tmp_path / "other", str(output / "checkpoint-2")) != first
    assert len(list((output / "logs" / "wandb").glob(f"offline-run-*-{first}"))) >= 1
