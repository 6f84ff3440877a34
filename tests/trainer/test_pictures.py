"""Picture grids: which rows they have, and that variants of a row begin with the same noise."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from adapter_api.progress import ExitCode
from adapter_api.training import SamplingConfig
from adapter_trainer import sample
from adapter_trainer.grids import GAP, grid, titled_grid
from adapter_trainer.order import Place
from adapter_trainer.pictures import Gallery, grid_rows, weighted
from adapter_trainer.processes import Processes
from tests.trainer.support import runs, tiny

ADAPTER = {"style": {"column": "shape", "projector": {"target": "Linear", "params": {"num_tokens": 2}}}}
WITH_ADAPTER = {"model": {"params": {"adapters_config": ADAPTER}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def test_rows_are_drawn_as_they_are_and_without_each_of_their_conditions() -> None:
    sampling = SamplingConfig.model_validate({"rows": [{"digit": 1, "caption": "a one"}, {"digit": 2}],
                                              "without_conditions": True})  # fmt: skip
    found = [(row.title, dict(row.row), row.noise) for row in grid_rows(sampling)]
    assert found == [
        ("digit: 1, caption: a one", {"digit": 1, "caption": "a one"}, 0),
        ("without digit", {"caption": "a one"}, 0),
        ("without caption", {"digit": 1}, 0),
        ("digit: 2", {"digit": 2}, 1),
    ]


def test_adapter_scales_make_a_row_of_each() -> None:
    sampling = SamplingConfig.model_validate({"rows": [{"digit": 1}], "adapter_scales": [0, 1.5]})
    assert [(row.title, row.adapter_scale) for row in grid_rows(sampling)] == [
        ("digit: 1 (0 x adapters)", 0.0),
        ("digit: 1 (1.5 x adapters)", 1.5),
    ]


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


@pytest.mark.process
def test_a_stop_while_pictures_are_drawn_ends_the_run_and_the_next_one_draws_them(data: Path, tmp_path: Path) -> None:
    rows = [{"digit": number % 3} for number in range(400)]
    drawing = {"steps": 20, "images_per_row": 2}
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
        return [value, self.other._my_rows(grid_rows(self.other.config.sampling))]


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
