"""MFU: counted FLOPs of an image, times images a second, over the peak of all devices."""

import json
import subprocess
import sys

import pytest

from adapter_trainer.forecast import flop_count
from adapter_trainer.forecast.device_speed import KNOWN
from adapter_trainer.forecast.utilization import Flops, Utilization, flops_of
from tests.trainer.support import runs, tiny


class Counted:
    """A process that has counted, or could not."""

    stdin = None

    def __init__(self, said: str, code: int | None) -> None:
        self.returncode = code
        self.stdout = self
        self.read = lambda: said

    def poll(self) -> int | None:
        return self.returncode


def of_two_h100(monkeypatch: pytest.MonkeyPatch, counted: Counted, *, encodes: bool) -> Utilization:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: counted)
    config = tiny.configuration(tiny.settings(changes={"optimization": {"mixed_precision": "bf16"}}))
    return Utilization(config, KNOWN["h100"], 2, encodes=encodes)


@pytest.mark.parametrize(("encodes", "expected"), [(False, 0.25), (True, 0.375)], ids=["cached", "encoders-in-step"])
def test_utilization_is_work_done_over_work_that_could_be_done(
    monkeypatch: pytest.MonkeyPatch, *, encodes: bool, expected: float
) -> None:
    said = json.dumps({"passes": 989e12 / 100, "encode": 989e12 / 200})
    assert of_two_h100(monkeypatch, Counted(said, 0), encodes=encodes).share(50) == pytest.approx(expected)


def test_nothing_is_said_before_the_work_is_counted_or_when_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_two_h100(monkeypatch, Counted("", None), encodes=False).share(50) is None
    assert of_two_h100(monkeypatch, Counted("", 1), encodes=False).share(50) is None


@pytest.mark.process
def test_a_process_of_its_own_counts_an_image_without_what_checkpointing_repeats() -> None:
    config = tiny.configuration(tiny.settings())
    work = flop_count.count(config)
    expected = Flops((work.forward_flops + work.backward_flops) / 4, work.encode_flops / 4)
    unet = {"model": {"params": {"unet_config": {"gradient_checkpointing": True}}}}
    checkpointed = tiny.configuration(tiny.settings(changes=unet))
    assert flops_of(checkpointed) == expected
    said = subprocess.run(
        [sys.executable, "-m", "adapter_trainer.forecast.utilization"],
        input=config.model_dump_json(), capture_output=True, text=True, check=True, env=runs.environment(),
    ).stdout  # fmt: skip
    assert Flops(**json.loads(said.splitlines()[-1])) == expected
