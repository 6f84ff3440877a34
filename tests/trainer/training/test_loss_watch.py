"""A loss that is not finite ends the run at its next report, with the samples named and older checkpoints left alone."""

import math
from pathlib import Path

import pytest
import torch

from adapter_trainer.data.pairs_table import Row
from adapter_trainer.errors import NonFiniteLoss
from adapter_trainer.training import loop, loss_watch, setup
from adapter_trainer.training.loss_watch import Watch
from tests.trainer.support import runs, tiny

ROWS = [Row(line, Path(f"{line}.png"), "", {}) for line in range(1, 8)]
POISONED = 4
"""The sample whose vector makes the loss overflow."""


def observed(*steps: tuple[list[float], list[int]]) -> Watch:
    found = Watch(torch.device("cpu"))
    for number, (losses, indices) in enumerate(steps, start=1):
        found.observe(number, torch.tensor(losses), torch.tensor(indices))
    return found


def test_finite_losses_are_nothing_to_tell() -> None:
    found = observed(([0.1, 1e29], [0, 1]), ([0.0, -3.0], [2, 3]))
    assert found.found(ROWS) is None
    assert not found.is_bad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2e30])
def test_the_first_bad_step_and_its_samples_are_remembered(bad: float) -> None:
    found = observed(([0.1, 0.2], [0, 1]), ([bad, 0.3], [2, 3]), ([bad, bad], [4, 5]), ([0.1], [6]))
    assert found.found(ROWS) == (2, ["3.png (line 3)"])
    assert found.is_bad


def test_what_processes_found_is_told_of_the_first_step_alone() -> None:
    assert (
        loss_watch.told([(5, ["a"]), None, (3, ["b", "c"]), (3, ["d"])])
        == "the loss of step 3 is not finite on b, c, d"
    )
    assert loss_watch.told([(1, list("abcdefgh"))]).endswith("on a, b, c, d, e and 3 more")
    assert loss_watch.told([None]) == "the loss is not finite"


@pytest.mark.process
def test_a_run_names_the_sample_that_overflowed_and_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    lines = (data / "train.txt").read_text(encoding="utf-8").splitlines()
    lines[POISONED] = "\t".join([*lines[POISONED].split("\t")[:-1], "3e38 3e38 -3e38 3e38 3e38"])
    (data / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokens = {"embed_to_token": {"column": "shape", "target": "Linear", "dropout": 0.0}}
    given = tiny.settings(data, {"model": {"params": {"token_conditioners": tokens}},
                                 "optimization": {"train_batch_size": 1, "max_train_steps": 11},
                                 "checkpoint": {"save_steps": 1}, "logging": {"log_steps": 100}})  # fmt: skip
    run = setup.prepare(tiny.configuration(given), setup.RunOptions(tmp_path / "output", show=lambda _: None))
    with pytest.raises(
        NonFiniteLoss, match=rf"is not finite on .*/{POISONED}\.png \(line {POISONED + 1}\); the checkpoints"
    ):
        loop.train(run)
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "output").glob("checkpoint-*"))
    assert steps == list(range(1, run.state.step))
    assert runs.train_here(given, tmp_path / "output", "--resume_from_checkpoint", "latest") == 1
    assert f"/{POISONED}.png" in runs.outcome(tmp_path / "output").message
