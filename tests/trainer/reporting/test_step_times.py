"""A step's time by part: contiguous, on clocks that answer at once and on clocks that answer later."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from adapter_trainer.reporting.step_times import PARTS, DeviceClock, StepTimes, clock_of
from tests.trainer.support import runs, tiny


class Ticks:
    """A clock of which every mark is one second later."""

    def __init__(self) -> None:
        self.ticks: Iterator[int] = count()

    def mark(self) -> int:
        return next(self.ticks)

    def between(self, start: int, end: int) -> float | None:
        return float(end - start)


class Late(Ticks):
    """Knows nothing until it is told that the device has come so far."""

    passed = -1

    def between(self, start: int, end: int) -> float | None:
        return float(end - start) if end <= self.passed else None


def step(times: StepTimes, encoder: nn.Module | None = None) -> None:
    times.begin_step()
    times.end("data")
    if encoder is not None:
        encoder(torch.zeros(1))
    times.end("forward")
    times.end("backward")
    times.end_step()


def test_parts_are_all_of_the_time() -> None:
    times = StepTimes(Ticks())
    step(times)
    step(times)
    expected = {"data": 2, "forward": 2, "backward": 2, "optimizer": 2, "other": 2}
    assert times.seconds() == {"encode": 0, "save": 0, **expected}
    times.restart()
    assert times.seconds() == dict.fromkeys(PARTS, 0.0)


def test_what_an_encoder_computes_within_the_forward_pass_is_encode() -> None:
    times, encoder = StepTimes(Ticks()), nn.Identity()
    times.watch(encoder)
    encoder(torch.zeros(1))  # a picture that is drawn between steps
    step(times, encoder)
    assert times.seconds()["encode"] == 1
    assert times.seconds()["forward"] == 2
    assert times.seconds()["other"] == 1


def test_a_device_that_lags_is_not_waited_for() -> None:
    clock = Late()
    times = StepTimes(clock)
    step(times)
    assert sum(times.seconds().values()) == 0
    clock.passed = 3
    assert times.seconds()["backward"] == 0
    assert times.seconds()["forward"] == 1
    clock.passed = 5
    assert sum(times.seconds().values()) == 5


def test_processors_are_timed_by_the_host_and_gpus_by_their_own_events() -> None:
    assert not isinstance(clock_of(torch.device("cpu")), DeviceClock)
    assert isinstance(clock_of(torch.device("cuda")), DeviceClock)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_parts_are_what_the_device_took() -> None:
    times = StepTimes(DeviceClock())
    matrix = torch.randn(2048, 2048, device="cuda")
    times.begin_step()
    times.end("data")
    for _ in range(20):
        matrix = matrix @ matrix
    times.end("forward")
    times.end_step()
    torch.cuda.synchronize()
    found = times.seconds()
    assert found["forward"] > max(found["data"], found["optimizer"])


@pytest.mark.process
def test_every_report_says_where_the_time_went_and_what_it_waited_for(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    given = tiny.settings(data, {"checkpoint": {"save_steps": 2}, "sampling": {"rows": [{"digit": 0}], "steps": 2}})
    assert runs.train_here(given, tmp_path / "output") == 0
    lines = runs.history(tmp_path / "output")
    reported = [line for line in lines if "loss" in line]
    assert [set(line["seconds"]) for line in reported] == [set(PARTS)] * 3
    for line in reported:
        # Four samples a step: what they took together is no longer than the step.
        assert 0 < sum(line["seconds"].values()) * line["images_per_second"] / 4 <= 1.01
        assert min(line["seconds"][part] for part in ("forward", "backward", "optimizer")) > 0
    assert [(line["step"], set(line["pauses"])) for line in lines if "pauses" in line] == [
        (2, {"saving", "sampling"}),
        (3, {"saving", "sampling"}),
    ]
    started = next(line["start"] for line in lines if "start" in line)
    assert started["processes"] == 1
    assert torch.__version__.startswith(started["versions"]["torch"])
