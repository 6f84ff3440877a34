"""`atj sample` and `atj export --what base` on checkpoints of the trainer: grids, single pictures, the newest of a folder."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from atj.errors import CommandError
from atj.main import app
from tests.trainer.support import runs, tiny

pytestmark = pytest.mark.process

ADAPTER = {"style": {"column": "look", "projector": {"target": "Linear"}}}
COLUMNS = [
    {"name": "digit", "kind": "label", "names": ["none", "one", "two"]},
    tiny.VECTOR_COLUMN,
    {"name": "look", "kind": "reference"},
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the trainer has left: checkpoints of steps 2 and 3."""
    data, output = tiny.write_data(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("run") / "output"
    lines = (data / "train.txt").read_text(encoding="utf-8").splitlines()
    (data / "train.txt").write_text("".join(f"{line}\t3.png\n" for line in lines), encoding="utf-8")
    changes = {
        "model": {"params": {"image_encoder_config": tiny.IMAGE_ENCODER, "adapters_config": ADAPTER}},
        "data": {"params": {"columns": COLUMNS}},
        "checkpoint": {"save_steps": 2},
        "sampling": {"steps": 1},
    }
    assert runs.train_here(tiny.settings(data, changes), output) == 0
    return output


def atj(*arguments: object) -> str:
    """What the command says; raises what it refuses with."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_newest_checkpoint_of_an_output_folder_is_drawn_from(output: Path, tmp_path: Path) -> None:
    newest, named = tmp_path / "newest.png", tmp_path / "named.png"
    atj("sample", output, "--out", newest, "--count", 2)
    atj("sample", output / "checkpoint-3", "--out", named, "--count", 2)
    assert newest.read_bytes() == named.read_bytes()


def test_weights_of_adapters_make_rows_and_size_is_that_of_each_picture(output: Path, tmp_path: Path) -> None:
    reference, out = tmp_path / "red.png", tmp_path / "grid.png"
    Image.new("RGB", (30, 20), (255, 0, 0)).save(reference)
    scales = ("--scale", 0, "--scale", 1.5)
    condition = ("--condition", f"look={reference}")
    said = atj("sample", output, "--label", "two", *scales, *condition, "--count", 3, "--size", 40, "--out", out)
    assert "2 rows of 3" in said
    with Image.open(out) as grid:
        pixels = np.asarray(grid.convert("RGB")).astype(int)
    assert (pixels == [255, 0, 0]).all(axis=-1).sum() >= 2 * 40 * 40  # the reference, beside both rows
    rows = pixels[-82:, -3 * 42 + 2 :]
    assert not np.array_equal(rows[:40], rows[42:])


def test_each_picture_can_have_a_file_of_its_own(output: Path, tmp_path: Path) -> None:
    said = atj("sample", output, "--label", "0", "--label", "one", "--count", 2, "--out", f"{tmp_path}/single/")
    assert "2 rows of 2, as 4 files" in said
    files = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert files == ["row-1-1.png", "row-1-2.png", "row-2-1.png", "row-2-2.png"]
    with Image.open(tmp_path / "single" / "row-2-2.png") as picture:
        assert picture.size == (8, 8)


@pytest.mark.parametrize("out", ["grid.jpg", "absent/grid.png", "file"])
def test_a_place_that_pictures_cannot_go_to_is_the_users_to_change(output: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"a \.png file, or a folder for single pictures, in a folder that exists"):
        atj("sample", output, "--out", tmp_path / out)


def test_a_checkpoint_becomes_a_base_that_a_configuration_trains_on(output: Path, tmp_path: Path) -> None:
    base, data = tmp_path / "base", Path(yaml.safe_load((output / "checkpoint-3" / "training.yaml").read_text())["data"]["params"]["data_root_path"])  # fmt: skip
    said = atj("export", output, "--what", "base", "--to", base)
    assert "unet, image_encoder, scheduler, label_to_token.safetensors, ip_adapter.safetensors" in " ".join(
        said.split()
    )
    given = yaml.safe_load((base / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])
    assert given["model"]["params"]["unet_config"] == {"pretrained": str(base), "subfolder": "unet"}
    given["model"]["params"]["adapters_config"] = {"style": {**ADAPTER["style"], "pretrained": str(base)}}
    given["data"] = {"params": {"columns": COLUMNS}}
    merged = tiny.merged(tiny.settings(data), given)
    merged["model"]["params"]["unet_config"] = given["model"]["params"]["unet_config"]
    assert runs.train_here(merged, tmp_path / "next") == 0
    assert not (tmp_path / "next" / "checkpoint-3" / "model" / "unet.safetensors").exists()  # it is frozen


def test_a_base_is_not_written_over_anything(output: Path) -> None:
    with pytest.raises(CommandError, match="name an empty folder"):
        atj("export", output, "--what", "base", "--to", output)
