"""Picture grids: which rows they have, and that variants of a row begin with the same noise."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from adapter_api.progress import ExitCode
from adapter_trainer.data.order import Place
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.sampling import sample
from adapter_trainer.sampling.gallery import Gallery, GridRow, column_titles, grid_rows, weighted
from adapter_trainer.sampling.grids import (
    GAP,
    LINE_HEIGHT,
    TITLE_LETTERS,
    TITLE_MARGIN,
    TITLE_SIZE,
    grid,
    resized,
    titled_grid,
)
from tests.trainer.support import runs, tiny

ADAPTER = {"style": {"column": "shape", "projector": {"target": "Linear", "params": {"num_tokens": 2}}}}
WITH_ADAPTER = {"model": {"params": {"adapters_config": ADAPTER}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def rows_of(sampling: tiny.Settings, **data_params: object) -> list[GridRow]:
    given = tiny.merged(tiny.settings(changes=WITH_ADAPTER), {"sampling": sampling, "data": {"params": data_params}})
    return grid_rows(tiny.configuration(given))


def test_rows_are_drawn_as_they_are_and_without_each_of_their_conditions() -> None:
    sampling = {
        "rows": [{"digit": 1, "caption": "a one"}, {"digit": 2}],
        "without_conditions": True,
        "images_per_row": 1,
    }
    found = [(row.title, [dict(cell) for cell in row.cells], row.noise) for row in rows_of(sampling)]
    assert found == [
        ("digit: 1, caption: a one", [{"digit": 1, "caption": "a one"}], 0),
        ("without digit", [{"caption": "a one"}], 0),
        ("without caption", [{"digit": 1}], 0),
        ("digit: 2", [{"digit": 2}], 1),
    ]


def test_adapter_scales_make_a_row_of_each_and_stand_first() -> None:
    found = rows_of({"rows": [{"digit": 1}], "adapter_scales": [0, 1.5]})
    assert [(row.title, row.adapter_scale) for row in found] == [
        ("adapters x 0, digit: 1", 0.0),
        ("adapters x 1.5, digit: 1", 1.5),
    ]


def test_values_are_written_as_people_call_them() -> None:
    named = [{"name": "digit", "kind": "label", "names": ["none", "one", "two"]}, tiny.VECTOR_COLUMN,
             {"name": "look", "kind": "reference"}]  # fmt: skip
    row = {"digit": "two", "shape": [0.5, 1, 2, 3, 4], "look": "/pictures/red/9.png", "caption": "a/b"}
    changes = {
        "sampling": {"rows": [row, {"digit": 1, "shape": [1e-3, 2, 0, 0, 0]}]},
        "data": {"params": {"columns": named}},
    }
    config = tiny.configuration(tiny.merged(tiny.settings(), changes))
    assert [row.title for row in grid_rows(config)] == [
        "digit: two, shape: 0.5 1 2 3 … (5 numbers), look: 9.png, caption: a/b",
        "digit: one, shape: 0.001 2 0 0 … (5 numbers)",
    ]


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    rows = [{"image": name} for name in ("photos/flower/0.jpg", "photos/sign/0.jpg", "photos/sign/1.jpg")]
    image_encoder = {"train": True, "params": {"image_size": 8, "patch_size": 4}}
    model = {"params": {"image_encoder_config": image_encoder, "adapters_config": {"style": {}}}}
    config = tiny.configuration(tiny.merged(tiny.settings(), {"sampling": {"rows": rows}, "model": model}))
    assert [row.title for row in grid_rows(config)] == ["image: flower/0.jpg", "image: sign/0.jpg", "image: 1.jpg"]


def test_columns_have_conditions_of_their_own_and_rows_one_noise() -> None:
    sampling = {"rows": [{"caption": "a", "digit": 2}], "columns": [{"digit": 0}, {"digit": 1, "caption": "b"}]}
    (row,) = rows_of(sampling)
    assert row.cells == ({"caption": "a", "digit": 0}, {"caption": "b", "digit": 1})
    assert row.title == "caption: a"  # the label is the columns' everywhere
    assert row.places == [Place(0, 0), Place(0, 0)]
    titles = column_titles(tiny.configuration(tiny.merged(tiny.settings(), {"sampling": sampling})))
    assert titles == ["0", "1, b"]
    without = rows_of({**sampling, "without_conditions": True})[2]
    assert (without.title, without.cells) == ("without digit", ({"caption": "a"}, {"caption": "b"}))


@pytest.mark.process
def test_a_grid_of_every_checkpoint_is_written_and_one_at_the_end_where_that_is_asked(
    data: Path, tmp_path: Path
) -> None:
    sampling = {"rows": [{"digit": 0, "shape": [0.0] * 5}], "steps": 2, "images_per_row": 2, "without_conditions": True}
    given = tiny.settings(data, tiny.merged(WITH_ADAPTER, {"sampling": sampling, "checkpoint": {"save_steps": 2}}))
    assert runs.train_here(given, tmp_path / "every") == 0
    assert sorted(path.name for path in (tmp_path / "every" / "samples").iterdir()) == ["step-2.png", "step-3.png"]
    with Image.open(tmp_path / "every" / "samples" / "step-3.png") as picture:
        assert picture.height == 3 * 64 + 2 * GAP
    assert runs.train_here(tiny.merged(given, {"sampling": {"at": "end"}}), tmp_path / "end") == 0
    assert [path.name for path in (tmp_path / "end" / "samples").iterdir()] == ["step-3.png"]


@pytest.mark.process
def test_an_adapter_of_weight_zero_draws_what_a_model_without_it_draws(data: Path, tmp_path: Path) -> None:
    assert runs.train_here(tiny.settings(data, WITH_ADAPTER), tmp_path / "output") == 0
    sampler = sample.load(tmp_path / "output" / "checkpoint-3")
    row: sample.Row = {"digit": 1, "shape": (1.0, 2.0, 3.0, 4.0, 5.0)}
    own = sampler.draw_at([row], [Place(0, 0)], steps=2)
    with weighted(sampler.model, 0.0):
        without = sampler.draw_at([row], [Place(0, 0)], steps=2)
    assert torch.equal(own, sampler.draw_at([row], [Place(0, 0)], steps=2))
    assert not torch.equal(own, without)
    for parameter in sampler.model.adapters["style"].parameters():
        parameter.data.zero_()
    assert torch.allclose(without, sampler.draw_at([row], [Place(0, 0)], steps=2))


@pytest.mark.process
def test_rows_at_once_are_the_rows_one_by_one(data: Path, tmp_path: Path) -> None:
    assert runs.train_here(tiny.settings(data), tmp_path / "output") == 0
    sampler = sample.load(tmp_path / "output" / "checkpoint-3")
    together = sampler.draw_at([{"digit": 0}, {"digit": 2}], [Place(0, 0), Place(1, 0)], steps=2)
    alone = sampler.draw([{"digit": 0}], 1, steps=2)
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_titles_stand_to_the_left_of_their_rows() -> None:
    images = torch.rand(4, 1, 8, 8)
    plain, titled = (
        grid(images, 2),
        titled_grid(images, 2, ["first", "second, a very long title that does not end soon"]),
    )
    assert titled.height == plain.height
    assert titled.crop((titled.width - plain.width, 0, titled.width, titled.height)).tobytes() == plain.tobytes()


def test_a_long_title_is_whole_and_its_row_as_high_as_it_needs() -> None:
    images, words = torch.rand(2, 1, 8, 8), "a condition with a long name: 0.25, "
    short, long = titled_grid(images, 1, ["one", "two"], 2), titled_grid(images, 1, ["one", words * 8], 2)
    assert long.height >= short.height + 8 * LINE_HEIGHT
    dark = [
        any(long.getpixel((x, y)) != (255, 255, 255) for x in range(TITLE_MARGIN, long.width - 16))
        for y in range(long.height)
    ]
    lines = sum(now and not before for before, now in pairwise(dark))
    assert lines >= 8  # none of them was cut off
    assert long.width <= 2 * TITLE_MARGIN + TITLE_LETTERS * TITLE_SIZE + 16


def test_references_stand_between_titles_and_rows_and_heads_above_columns() -> None:
    red = Image.new("RGB", (20, 40), (255, 0, 0))
    images = torch.zeros(4, 3, 16, 16)
    found = titled_grid(images, 2, ["", ""], 1, heads=["one", "a head of words"], references={"ref": [red, None]})
    pixels = torch.from_numpy(np.asarray(found).copy()).int()
    body = found.height - (2 * 16 + GAP)
    assert body >= 2 * LINE_HEIGHT  # the second head has several lines
    left = 2 * TITLE_MARGIN
    assert (pixels[body : body + 16, left : left + 16] == torch.tensor([255, 0, 0])).all()
    assert (pixels[body + 16 + GAP :, left : left + 16] == 255).all()
    start = found.width - 2 * 16 - GAP
    assert (pixels[body : body + 16, start : start + 16] == 0).all()
    for place in (left, start, start + 16 + GAP):
        assert (pixels[:body, place : place + 16] < 128).any()


def test_a_picture_is_shown_as_wide_as_asked_in_squares_where_that_fits() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(resized(image, 24)[..., ::3, ::3], image)
    assert resized(torch.rand(1, 1, 30, 40), 20).shape == (1, 1, 15, 20)


@pytest.mark.process
def test_a_runs_grid_shows_references_from_its_data_and_columns_by_name(data: Path, tmp_path: Path) -> None:
    columns = [{"name": "digit", "kind": "label", "names": ["none", "one", "two"]}, tiny.VECTOR_COLUMN]
    changes = {
        "model": {"params": {"image_encoder_config": tiny.IMAGE_ENCODER,
                             "adapters_config": {"style": {"column": "image"}}}},
        "data": {"params": {"columns": columns}},
        "sampling": {"rows": [{"image": "3.png"}], "columns": [{"digit": "one"}, {"digit": 2}], "steps": 1},
    }  # fmt: skip
    assert runs.train_here(tiny.settings(data, changes), tmp_path) == 0
    with Image.open(tmp_path / "samples" / "step-3.png") as picture, Image.open(data / "3.png") as reference:
        pixels = np.asarray(picture.convert("L")).astype(int)
        shown = np.asarray(ImageOps.fit(reference, (64, 64)).convert("L")).astype(int)
    start = picture.width - 2 * (64 + GAP) - TITLE_MARGIN - 64
    assert np.abs(pixels[-64:, start : start + 64] - shown).max() <= 1


@pytest.mark.process
def test_a_stop_while_pictures_are_drawn_ends_the_run_and_the_next_one_draws_them(data: Path, tmp_path: Path) -> None:
    rows = [{"digit": number % 3} for number in range(64)]
    drawing = {"steps": 20, "images_per_row": 12}
    outputs = [tmp_path / "0", tmp_path / "1"]
    run = runs.start(tiny.settings(data, {"sampling": {**drawing, "rows": rows}}), outputs, folder=tmp_path)
    runs.wait_for_phase(run, outputs[0], "sampling")
    run.terminate(rank=1)
    assert run.wait() == [ExitCode.STOPPED] * 2, run.said
    assert (outputs[0] / "checkpoint-3").is_dir()
    assert not (outputs[0] / "samples").exists()
    few = tiny.settings(data, {"sampling": {**drawing, "rows": rows[:2]}})
    assert runs.finish(few, outputs, "--resume_from_checkpoint", "latest", folder=tmp_path) == [0, 0]
    assert (outputs[0] / "samples" / "step-3.png").is_file()


class _Two(Processes):
    """Rank 0 of two; the other one's share is drawn here too."""

    other: Gallery | None = None

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        if self.rank or self.other is None:
            return [value]
        return [value, self.other._my_rows(grid_rows(self.other.config))]


@pytest.mark.process
def test_ranks_share_the_rows_of_a_grid(data: Path, tmp_path: Path) -> None:
    changes = {"sampling": {"rows": [{"digit": 0}, {"digit": 1}, {"digit": 2}], "steps": 2, "images_per_row": 2}}
    assert runs.train_here(tiny.settings(data, changes), tmp_path / "alone") == 0
    sampler = sample.load(tmp_path / "alone" / "checkpoint-3")
    first, second = _Two(0, 2), _Two(1, 2)
    first.other = Gallery(sampler.config, sampler.model, second, torch.device("cpu"), tmp_path)
    path = Gallery(sampler.config, sampler.model, first, torch.device("cpu"), tmp_path / "two").draw(3)
    assert path is not None
    assert path.read_bytes() == (tmp_path / "alone" / "samples" / "step-3.png").read_bytes()
