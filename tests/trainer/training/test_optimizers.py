"""Every optimizer trains, and a run that is resumed with it computes what the uninterrupted one does."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from adapter_api.document import InvalidDocument
from tests.trainer.support import tiny
from tests.trainer.support.runs import losses, outcome, tensors_of, train_here

HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
NEEDS_BITSANDBYTES = pytest.mark.skipif(not HAS_BITSANDBYTES, reason="needs the extra gpu")


def settings(data: Path, target: str, steps: int = 6, **params: Any) -> tiny.Settings:
    rate = 1.0 if target == "Prodigy" else 0.002
    optimization = {
        "optimizer": {"target": target, "params": params},
        "learning_rate": rate,
        "max_train_steps": steps,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 2,
    }
    return tiny.settings(data, {"optimization": optimization, "checkpoint": {"save_steps": 3}})


@pytest.mark.process
@pytest.mark.parametrize(
    "target", ["AdamW", "Prodigy", "Adafactor", pytest.param("AdamW8bit", marks=NEEDS_BITSANDBYTES)]
)
def test_resumed_state_is_the_state(target: str, data: Path, tmp_path: Path) -> None:
    assert train_here(settings(data, target), tmp_path / "whole") == 0
    assert train_here(settings(data, target, steps=3), tmp_path / "parts") == 0
    assert train_here(settings(data, target), tmp_path / "parts", "--resume_from_checkpoint", "latest") == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert tensors_of(tmp_path / "parts" / "checkpoint-6") == tensors_of(tmp_path / "whole" / "checkpoint-6")
    assert len(set(losses(tmp_path / "whole").values())) == 6
    groups = (tmp_path / "whole" / "checkpoint-6" / "optimizer.json").read_text(encoding="utf-8")
    assert json.loads(groups, parse_constant=pytest.fail)[0]["names"]


@pytest.mark.process
def test_prodigy_finds_a_rate_and_keeps_it(data: Path, tmp_path: Path) -> None:
    assert train_here(settings(data, "Prodigy", d_coef=2.0), tmp_path / "output") == 0
    group = json.loads((tmp_path / "output" / "checkpoint-6" / "optimizer.json").read_text(encoding="utf-8"))[0]
    assert group["d"] > group["d0"] == 1e-6
    assert (group["k"], group["d_coef"]) == (5, 2.0)  # the first step of the warmup has a rate of 0 and does not count


@pytest.mark.process
@pytest.mark.skipif(HAS_BITSANDBYTES, reason="it is installed")
def test_a_missing_library_is_named_with_what_to_do(data: Path, tmp_path: Path) -> None:
    assert train_here(settings(data, "AdamW8bit"), tmp_path / "output") == 2
    assert "install the extra `gpu`, or choose Adafactor" in outcome(tmp_path / "output").message


@pytest.mark.process
def test_another_optimizers_state_is_refused(data: Path, tmp_path: Path) -> None:
    assert train_here(settings(data, "AdamW", steps=3), tmp_path / "first") == 0
    other = ("--resume_from_checkpoint", str(tmp_path / "first" / "checkpoint-3"))
    assert train_here(settings(data, "Adafactor"), tmp_path / "second", *other) == 2
    assert "optimizer.safetensors is of AdamW, this configuration's" in outcome(tmp_path / "second").message


@pytest.mark.parametrize(
    ("target", "optimization", "message"),
    [
        ("Prodigy", {"learning_rate": 1e-4}, "learning_rate: is 0.0001, but Prodigy finds the rate itself"),
        ("Adafactor", {"optimizer": {"params": {"betas": [0.8, 0.9]}}}, "betas: Adafactor has no such setting"),
        ("AdamW", {"optimizer": {"params": {"d_coef": 2}}}, "choose Prodigy"),
    ],
    ids=["rate", "averages", "another-one's"],
)
def test_settings_that_an_optimizer_does_not_have_are_refused(
    target: str, optimization: tiny.Settings, message: str, data: Path
) -> None:
    given = tiny.merged(settings(data, target), {"optimization": optimization})
    with pytest.raises(InvalidDocument, match=message):
        tiny.configuration(given)
