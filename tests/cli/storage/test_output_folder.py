"""Two runs never share a folder, and a folder is never taken over by a job that differs in a way that matters."""

from pathlib import Path

import pytest

from atj.errors import CommandError
from atj.storage.output_folder import OutputFolder


def test_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    with folder.held(), pytest.raises(CommandError, match="another `atj run` is using"), folder.held():
        pass
    with folder.held():
        pass


def test_run_keeps_its_identity(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    first = folder.record_of("digits")
    folder.remember(first)
    assert folder.record_of("digits") == first


def test_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.remember(folder.record_of("digits"))
    with pytest.raises(CommandError, match="holds a run of job 'digits', not 'letters'"):
        folder.record_of("letters")


def test_record_that_was_tampered_with_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CommandError, match=r"run\.json: cannot be read"):
        OutputFolder(tmp_path).record()


def test_folder_that_cannot_be_made_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError) as caught:
        OutputFolder(tmp_path / "file" / "out").create()
    assert caught.value.exit_code == 2


def test_pictures_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for node in (0, 1, 10):
        for step in (1000, 200, 30):
            file = tmp_path / f"node-{node}" / "output" / "samples" / f"step-{step}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    found = [(path.parts[-4], path.stem) for path in OutputFolder(tmp_path).pictures()]
    assert found == [(f"node-{node}", f"step-{step}") for node in (0, 1, 10) for step in (30, 200, 1000)]
