"""How long a run is, and its learning rate, follow what it has learned from, whoever runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.document import InvalidDocument
from adapter_api.optimization import OptimizationConfig
from adapter_trainer.errors import NonFiniteLoss
from adapter_trainer.training import loop, setup
from adapter_trainer.training.learning_rates import scale_of
from adapter_trainer.training.length import Length
from tests.trainer.support import runs, tiny

LATEST = ("--resume_from_checkpoint", "latest")
SAMPLES = 12
OVERFLOWS = 3


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("twelve"), SAMPLES)


def epochs(data: Path, count: int, **optimization: Any) -> tiny.Settings:
    changes = {"optimization": {"max_train_steps": None, "num_train_epochs": count, **optimization}}
    return tiny.settings(data, changes)


def state_of(output: Path, step: int) -> dict[str, Any]:
    text = (output / f"checkpoint-{step}" / "trainer_state.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def rates(output: Path) -> dict[int, float]:
    return {line["step"]: line["learning_rate"] for line in runs.history(output) if "loss" in line}


@given(
    samples=st.integers(1, 2000),
    before=st.integers(1, 64),
    after=st.integers(1, 64),
    share=st.floats(0, 1),
)
def test_a_regrouped_run_ends_where_every_sample_has_been_read_as_often_as_asked(
    samples: int, before: int, after: int, share: float
) -> None:
    length = Length(None, samples, before)
    steps = int(length.span * share)
    total = length.total_steps(steps, steps * before, after)
    learned = steps * before + (total - steps) * after
    assert samples <= max(learned, samples) < samples + max(before, after)
    assert learned >= samples
    assert length.position(total, learned) >= samples / before
    assert length.total_steps(steps, steps * before, before) == length.span
    assert length.position(steps, steps * before) == steps


@given(steps=st.integers(1, 1000), at=st.integers(0, 1000), learned=st.integers(0, 10**6))
def test_with_max_train_steps_steps_count(steps: int, at: int, learned: int) -> None:
    length = Length(steps, 5, 3)
    assert (length.span, length.total_steps(at, learned, 7), length.position(at, learned)) == (steps, steps, at)


@pytest.mark.process
@pytest.mark.parametrize(("batch", "steps"), [(8, 6), (2, 12)], ids=["4 to 8", "4 to 2"])
def test_another_batch_size_changes_neither_the_epochs_nor_the_schedule(
    twelve: Path, tmp_path: Path, batch: int, steps: int
) -> None:
    """Twelve samples four times: three steps of four are a quarter."""
    output = tmp_path / "output"
    whole = epochs(twelve, 4, lr_scheduler="linear", lr_warmup_steps=2)
    assert runs.train_here(whole, tmp_path / "whole") == 0
    first = tiny.merged(whole, {"optimization": {"num_train_epochs": 1}})
    assert runs.train_here(first, output) == 0
    second = tiny.merged(whole, {"optimization": {"train_batch_size": batch}})
    total = 3 + 36 * 1 // batch + (36 % batch > 0)
    assert runs.train_here(second, output, *LATEST) == 0
    assert state_of(output, total)["samples_seen"] in range(48, 48 + batch)
    assert total == {8: 8, 2: 21}[batch]
    expected = rates(tmp_path / "whole")
    if batch == 2:
        assert rates(output)[5] == pytest.approx(expected[4])
    else:
        assert rates(output)[4] == pytest.approx(expected[5])
    assert rates(output)[total] == pytest.approx(0)


@pytest.mark.process
def test_another_number_of_processes_changes_neither(twelve: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    given = epochs(twelve, 4, lr_scheduler="cosine", train_batch_size=3)
    first = tiny.merged(given, {"optimization": {"num_train_epochs": 2}})
    assert runs.train_here(first, output) == 0
    runs.finish(given, [output, output], *LATEST, folder=tmp_path)
    assert state_of(output, 12)["samples_seen"] == 48
    assert rates(output)[12] == pytest.approx(0, abs=1e-12)
    assert runs.outcome(output).reason == "Complete"


@pytest.mark.process
def test_a_run_that_is_extended_says_what_its_schedule_does(data: Path, tmp_path: Path) -> None:
    changes = {"optimization": {"max_train_steps": 4, "lr_scheduler": "linear"}}
    assert runs.train_here(tiny.settings(data, changes), tmp_path) == 0
    said: list[str] = []
    changes["optimization"]["max_train_steps"] = 8
    setup.prepare(tiny.configuration(tiny.settings(data, changes)), setup.RunOptions(tmp_path, "latest", said.append))
    assert said[-1] == (
        "optimization.lr_scheduler: linear spanned 4 steps before, and spans 8 now; this run continues at 4 of them, "
        "with the rate of that place, 0.001"
    )


def scales(span: int, **settings: Any) -> list[float]:
    config = OptimizationConfig.model_validate({"learning_rate": 0.01, **settings})
    scale = scale_of(config, span)
    return [scale(step) for step in range(span + 1)]


def test_cosine_restarts_as_often_as_it_is_told() -> None:
    found = scales(12, lr_scheduler="cosine_with_restarts", lr_num_cycles=3)
    assert [index for index, scale in enumerate(found) if scale == 1] == [0, 4, 8]
    assert found[12] == 0
    assert found[2] == pytest.approx(0.5)


def test_polynomial_has_its_power_and_its_end() -> None:
    found = scales(4, lr_scheduler="polynomial", lr_power=2.0, lr_end=0.002)
    assert found == pytest.approx([0.2 + 0.8 * (1 - step / 4) ** 2 for step in range(5)])
    assert scales(3, lr_scheduler="polynomial", lr_warmup_steps=3)[2] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_beyond_its_end_a_schedule_stays_there(name: str) -> None:
    config = OptimizationConfig.model_validate({"lr_scheduler": name})
    scale = scale_of(config, 10)
    assert scale(10.7) == scale(10) == pytest.approx(0, abs=1.1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_num_cycles": 3}, "lr_num_cycles: constant has no such setting; .* lr_scheduler cosine_with_restarts"),
        ({"lr_power": 2.0, "lr_scheduler": "cosine"}, "lr_power: cosine has no such setting"),
        ({"lr_end": 0.01, "lr_scheduler": "polynomial"}, "lr_end: is 0.01, and polynomial goes down to it"),
    ],
)
def test_what_a_schedule_does_not_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDocument, match=message):
        tiny.configuration(tiny.settings(changes={"optimization": settings}))


def with_scaler(data: Path, output: Path, overflows: int) -> loop.Training:
    """A run whose losses are scaled as float16 needs it, by torch's own scaler, and whose first gradients overflow."""
    changes = {"optimization": {"ema": {"decay": 0.5, "warmup": False}, "lr_scheduler": "linear", "max_train_steps": 4}}
    run = setup.prepare(tiny.configuration(tiny.settings(data, changes)), setup.RunOptions(output, show=lambda _: None))
    scaler = torch.amp.GradScaler("cpu", growth_interval=10**6)
    run.state.accelerator.scaler = scaler
    optimizer = run.state.optimizer
    optimizer.scaler = scaler
    optimizer._accelerate_step_called = False
    optimizer._optimizer_original_step_method = optimizer.optimizer.step
    optimizer._optimizer_patched_step_method = optimizer.optimizer.step
    left = [torch.inf] * overflows
    _, parameter = next(iter(run.state.trained()))
    parameter.register_hook(lambda gradient: gradient * (left.pop() if left else 1.0))
    return run


def test_a_step_that_overflowed_advances_nothing_but_the_data(data: Path, tmp_path: Path) -> None:
    run = with_scaler(data, tmp_path, OVERFLOWS)
    state = run.state
    assert state.ema is not None
    weights = [rows.clone() for rows in state.trained_rows()]
    rate = state.rates.first
    for _ in range(OVERFLOWS):
        loop.take_step(run)
        assert state.step == 0
        assert all(torch.equal(old, new) for old, new in zip(weights, state.trained_rows(), strict=True))
        assert state.ema.optimization_step == 0
        assert state.rates.first == rate
    loop.take_step(run)
    assert state.step == 1
    assert state.seen == 4 * (OVERFLOWS + 1)
    assert (state.skipped, state.learned) == (4 * OVERFLOWS, 4)
    assert state.ema.optimization_step == 1
    assert state.rates.first == pytest.approx(rate * 3 / 4)
    assert not all(torch.equal(old, new) for old, new in zip(weights, state.trained_rows(), strict=True))


@pytest.mark.process
def test_a_run_of_overflows_takes_as_many_steps_as_asked_and_saves_each_once(data: Path, tmp_path: Path) -> None:
    run = with_scaler(data, tmp_path, OVERFLOWS)
    assert loop.train(run)
    assert run.state.step == 4
    assert [line["step"] for line in runs.history(tmp_path) if "loss" in line] == [1, 2, 3, 4]
    assert state_of(tmp_path, 4)["samples_skipped"] == 4 * OVERFLOWS


def test_overflows_without_an_end_end_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_scaler(data, tmp_path, OVERFLOWS)
    monkeypatch.setattr(loop, "MAX_OVERFLOWS", OVERFLOWS)
    for _ in range(OVERFLOWS - 1):
        loop.take_step(run)
    with pytest.raises(NonFiniteLoss, match=f"step 1: gradients overflowed in {OVERFLOWS} passes in a row"):
        loop.take_step(run)


@pytest.mark.process
def test_a_reported_loss_is_the_mean_since_the_last_report(data: Path, tmp_path: Path) -> None:
    each = tiny.settings(data, {"optimization": {"max_train_steps": 5}})
    assert runs.train_here(each, tmp_path / "each") == 0
    some = tiny.merged(each, {"logging": {"log_steps": 2}, "checkpoint": {"save_steps": 4}})
    assert runs.train_here(some, tmp_path / "some") == 0
    losses = runs.losses(tmp_path / "each")
    expected = {2: (losses[1] + losses[2]) / 2, 4: (losses[3] + losses[4]) / 2, 5: losses[5]}
    assert runs.losses(tmp_path / "some") == pytest.approx(expected, rel=1e-6)
    kept = json.loads((tmp_path / "some" / "checkpoint-4" / "metrics.json").read_text(encoding="utf-8"))
    assert kept["loss"] == pytest.approx(expected[4], rel=1e-6)
