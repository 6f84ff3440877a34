"""progress.json: what the agent serves of a run."""

from pathlib import Path

import pytest

from adapter_api.layout import PROGRESS_FILE
from adapter_api.progress import Progress
from tests.trainer.support import runs, tiny

pytestmark = pytest.mark.process


def test_progress_tells_where_a_start_went_on_from_and_how_long_its_save_took(data: Path, tmp_path: Path) -> None:
    def train(steps: int) -> Progress:
        given = tiny.settings(data, {"optimization": {"max_train_steps": steps}})
        assert runs.train_here(given, tmp_path / "output", "--resume_from_checkpoint", "latest") == 0
        return Progress.model_validate_json((tmp_path / "output" / PROGRESS_FILE).read_bytes())

    first, second = train(2), train(4)
    assert (first.resumed_step, first.saved_step, second.resumed_step, second.saved_step) == (0, 2, 2, 4)
    assert second.save_seconds is not None
    assert second.save_seconds > 0
