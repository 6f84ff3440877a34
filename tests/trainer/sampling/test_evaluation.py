"""Evaluation: the same figures for any number of processes, and figures that tell what a condition does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapter_api.progress import ExitCode
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidData
from adapter_trainer.training import loop, setup
from tests.trainer.support import runs, tiny

HELD_OUT = "held-out.txt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven samples to train on; five of them, as if they were others, to measure with."""
    folder = tiny.write_data(tmp_path_factory.mktemp("data"))
    lines = (folder / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / HELD_OUT).write_text("".join(lines[:5]), encoding="utf-8")
    return folder


def settings(data: Path, **evaluation: Any) -> tiny.Settings:
    return tiny.settings(data, {"evaluation": {"pairs_file_path": HELD_OUT, "timesteps": 2, **evaluation}})


def prepared(data: Path, output: Path, **evaluation: Any) -> loop.Training:
    config = tiny.configuration(settings(data, **evaluation))
    return setup.prepare(config, setup.RunOptions(output, show=lambda _: None))


@pytest.mark.process
def test_an_evaluation_measures_loss_gain_of_each_condition_and_pictures(data: Path, tmp_path: Path) -> None:
    run = prepared(data, tmp_path, pictures=5)
    assert run.evaluation is not None
    figures = run.evaluation.measure()
    assert set(figures) == {
        "validation_loss", "gain.label_to_token", "label_accuracy", "judge_accuracy", "image_similarity",
        "image_similarity_by_chance", "vector_correlation.shape", "judge_correlation.shape",
    }  # fmt: skip
    assert figures["judge_accuracy"] == 1.0  # it has learnt from these very images
    assert figures["judge_correlation.shape"] > 0.99
    assert figures == run.evaluation.measure()


@pytest.mark.process
def test_pictures_are_compared_with_their_references_and_judged_by_no_encoder_that_the_run_trains(
    data: Path, tmp_path: Path
) -> None:
    encoder, adapters = {**tiny.IMAGE_ENCODER, "train": True}, {"style": {"column": "look"}}
    lines = (data / "train.txt").read_text(encoding="utf-8").splitlines()
    for name in ("train.txt", HELD_OUT):
        some = lines if name == "train.txt" else lines[:5]
        text = "".join(f"{line}\t{(number + 1) % 11}.png\n" for number, line in enumerate(some))
        (data / f"looks-{name}").write_text(text, encoding="utf-8")
    columns = [tiny.LABEL_COLUMN, tiny.VECTOR_COLUMN, {"name": "look", "kind": "reference"}]
    given = tiny.merged(
        settings(data, pictures=5, pairs_file_path=f"looks-{HELD_OUT}"),
        {
            "model": {"params": {"image_encoder_config": encoder, "adapters_config": adapters}},
            "data": {"params": {"columns": columns, "pairs_file_path": "looks-train.txt"}},
        },
    )
    run = setup.prepare(tiny.configuration(given), setup.RunOptions(tmp_path, show=lambda _: None))
    assert run.evaluation is not None
    figures = run.evaluation.measure()
    assert {"reference_colour_error.look", "reference_colour_error_by_chance.look"} <= set(figures)
    assert run.evaluation._seeing() is None
    assert figures["judge_accuracy"] == 1.0


@pytest.mark.process
def test_evaluating_changes_nothing_of_the_run(data: Path, tmp_path: Path) -> None:
    run = prepared(data, tmp_path)
    assert run.evaluation is not None
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    random = torch.random.get_rng_state()
    run.evaluation.measure()
    assert all(torch.equal(value, before[name]) for name, value in run.state.model.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())
    assert run.state.model.training


@pytest.mark.process
def test_processes_share_the_work_and_count_every_sample_once(data: Path, tmp_path: Path) -> None:
    run = prepared(data, tmp_path, pictures=5)
    assert run.evaluation is not None
    alone = run.evaluation.measure()
    run.evaluation.processes = _Two(0)
    first = list(run.evaluation._shares(5, 0))
    run.evaluation.processes = _Two(1)
    second = list(run.evaluation._shares(5, 0))
    counted = [
        place.position
        for places, counts in [*first, *second]
        for place, counts_one in zip(places, counts, strict=True)
        if counts_one
    ]
    assert sorted(counted) == [0, 1, 2, 3, 4]
    assert [len(places) for places, _ in first] == [len(places) for places, _ in second]
    assert alone["validation_loss"] > 0


class _Two(Processes):
    def __init__(self, rank: int) -> None:
        super().__init__(rank, 2)


@pytest.mark.process
def test_every_checkpoint_holds_its_evaluation_and_the_run_reports_it(data: Path, tmp_path: Path) -> None:
    given = tiny.merged(settings(data, pictures=2), {"checkpoint": {"save_steps": 2}})
    output = tmp_path / "output"
    assert runs.train_here(given, output) == 0
    told = {line["step"]: line["evaluation"] for line in runs.history(output) if "evaluation" in line}
    assert sorted(told) == [2, 3]
    kept = json.loads((output / "checkpoint-3" / "metrics.json").read_text(encoding="utf-8"))
    assert kept["validation_loss"] == pytest.approx(told[3]["validation_loss"], rel=1e-4)
    progress = json.loads((output / "progress.json").read_text(encoding="utf-8"))
    assert progress["metrics"] == told[3]


@pytest.mark.process
def test_a_stop_during_the_evaluation_saves_at_once_on_all_ranks(data: Path, tmp_path: Path) -> None:
    lines = (data / HELD_OUT).read_text(encoding="utf-8")
    (data / "many.txt").write_text(lines * 100, encoding="utf-8")
    given = tiny.merged(
        settings(data, pairs_file_path="many.txt", samples=500, timesteps=64), {"checkpoint": {"save_steps": 2}}
    )
    output = tmp_path / "0"
    run = runs.start(given, [output, tmp_path / "1"], folder=tmp_path)
    runs.wait_for_phase(run, output, "evaluating")
    run.terminate(rank=1)
    assert run.wait() == [ExitCode.STOPPED] * 2, run.said
    assert (output / "checkpoint-2" / "metrics.json").is_file()
    assert not [line for line in runs.history(output) if "evaluation" in line]


@pytest.mark.process
def test_conditions_that_are_obeyed_gain_and_permuted_ones_do_not(data: Path, tmp_path: Path) -> None:
    """Trained to learn eleven samples by heart, the model misses the label where it is withheld."""
    changes = {
        "model": {"params": {"token_conditioners": {"label_to_token": {"params": {"hidden_dim": 16}}}}},
        "optimization": {"max_train_steps": 150, "learning_rate": 0.01, "train_batch_size": 11},
        "logging": {"log_steps": 150},
    }
    run_settings = tiny.merged(settings(data, timesteps=4), changes)
    run = setup.prepare(tiny.configuration(run_settings), setup.RunOptions(tmp_path, show=lambda _: None))
    assert run.evaluation is not None
    untrained = run.evaluation.measure()
    loop.train(run)
    trained = run.evaluation.measure()
    assert trained["validation_loss"] < untrained["validation_loss"]
    assert trained["gain.label_to_token"] > 0.02 > abs(untrained["gain.label_to_token"])


def test_a_held_out_label_that_training_does_not_know_is_named_with_its_line(data: Path, tmp_path: Path) -> None:
    (data / "other.txt").write_text("0.png\tnothing\t7\t0 0 0 0 0\n", encoding="utf-8")
    with pytest.raises(InvalidData, match=r"other\.txt:1: digit: label 7 is outside 0\.\.2"):
        prepared(data, tmp_path, pairs_file_path="other.txt")


def test_a_held_out_file_that_is_not_there_is_named_by_its_field(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"evaluation\.pairs_file_path: .*absent\.txt cannot be read"):
        prepared(data, tmp_path, pairs_file_path="absent.txt")
