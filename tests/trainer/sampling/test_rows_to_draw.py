"""What config.sampling draws is found in the data and checked before the first step, by field."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapter_api.progress import ExitCode
from adapter_api.training import TrainingConfig
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.errors import InvalidData
from adapter_trainer.sampling.rows_to_draw import check_rows_to_draw
from tests.trainer.support import runs, tiny

COLUMNS = [
    tiny.LABEL_COLUMN,
    tiny.VECTOR_COLUMN,
    {"name": "face", "kind": "embedding", "width": 4},
    {"name": "style", "kind": "reference"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "styles").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "styles" / "a.png")
    (folder / "cut.png").write_bytes((folder / "styles" / "a.png").read_bytes()[:-30])
    np.save(folder / "face.npy", np.ones(4, np.float32))
    np.save(folder / "narrow.npy", np.ones(3, np.float32))
    return folder


def drawing(root: Path, **row: Any) -> TrainingConfig:
    given = {"data": {"params": {"columns": COLUMNS}}, "sampling": {"rows": [{"digit": 1}, row]}}
    return tiny.configuration(tiny.settings(root, given))


def test_files_are_those_of_the_data_and_others_are_left_as_they_are(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "here.png")
    row = {"style": "styles/a.png", "face": "face.npy", "caption": "styles/a.png", "digit": 2, "image": "here.png"}
    config = drawing(root, **row)
    assert [file_of(config, name) for name in ("styles/a.png", "here.png")] == [root / "styles/a.png", Path("here.png")]
    check_rows_to_draw(config)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"style": "gone.png"}, "style: gone.png does not exist, neither in data.params.data_root_path nor from here; correct it"),
        ({"style": "cut.png"}, "style: cut.png cannot be decoded: "),
        ({"image": "gone.png"}, "image: gone.png does not exist"),
        ({"style": 3}, "style: 3 is not a file; give its path"),
        ({"face": "narrow.npy"}, "face: narrow.npy has 3 numbers, not 4"),
        ({"face": "gone.npy"}, "face: gone.npy does not exist"),
        ({"face": "styles/a.png"}, "face: a.png is neither .npy nor .safetensors"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_drawn_is_named_by_its_field(root: Path, row: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidData) as caught:
        check_rows_to_draw(drawing(root, **row))
    assert str(caught.value).startswith(f"sampling.rows[1].{fault}")


@pytest.mark.process
def test_a_run_is_refused_before_its_first_step_and_says_what_its_data_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_data(tmp_path / "data")
    first, second = (Image.new("L", (8, 8), level) for level in (0, 255))
    first.save(data / "0.png", save_all=True, append_images=[second])
    changes = {"sampling": {"rows": [{"image": "gone.png"}]}, "optimization": {"max_train_steps": 1}}
    assert runs.train_here(tiny.settings(data, changes), tmp_path / "output") == ExitCode.INVALID
    said = capsys.readouterr()
    assert "error: sampling.rows[0].image: gone.png does not exist" in said.err
    assert "train.txt: 11 samples of 11 pictures, 11 different captions\n" in said.out
    assert "train.txt: 1 picture of several frames or pages, of which the first is read; one is 0.png\n" in said.out
