"""Loaded weights are told from others by digests, and a run goes on beside those that it began with only."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adapter_trainer.model import base_digests
from adapter_trainer.model.adapter_model import AdapterModel
from tests.trainer.support import runs, tiny

LATEST = ("--resume_from_checkpoint", "latest")


def store(folder: Path, seed: int) -> None:
    """A UNet of this seed, in place of what lay there."""
    AdapterModel.of(tiny.configuration(tiny.settings(changes={"seed": seed}))).unet.save_pretrained(folder)


def base_of(model: AdapterModel) -> dict[str, str]:
    return base_digests.base_digests(model, base_digests.digests(model.parameters()))


def settings(data: Path, unet: Path, steps: int, **unet_config: object) -> tiny.Settings:
    changes = {
        "model": {"params": {"unet_config": {"pretrained": str(unet), "train": False, **unet_config}}},
        "optimization": {"max_train_steps": steps},
    }
    return tiny.settings(data, changes)


@pytest.mark.process
def test_a_run_is_not_continued_beside_other_weights_than_it_began_with(data: Path, tmp_path: Path) -> None:
    unet, output = tmp_path / "unet", tmp_path / "output"
    store(unet, 1)
    assert runs.train_here(settings(data, unet, 2), output) == 0
    store(unet, 2)
    assert runs.train_here(settings(data, unet, 4), output, *LATEST) != 0
    ended = runs.outcome(output)
    assert ended.reason == "IncompatibleCheckpoint"
    assert "was trained with other weights of unet than what is loaded now from the same place" in ended.message
    store(unet, 1)
    assert runs.train_here(settings(data, unet, 4), output, *LATEST) == 0
    assert list(runs.losses(output)) == [1, 2, 3, 4]


@pytest.mark.process
def test_another_run_may_begin_with_a_checkpoint_beside_other_weights(data: Path, tmp_path: Path) -> None:
    unet = tmp_path / "unet"
    store(unet, 1)
    assert runs.train_here(settings(data, unet, 2), tmp_path / "first") == 0
    store(unet, 2)
    begun = ("--resume_from_checkpoint", str(tmp_path / "first" / "checkpoint-2"))
    assert runs.train_here(settings(data, unet, 4), tmp_path / "second", *begun) == 0


@pytest.mark.parametrize(
    ("unet_config", "parts"),
    [({}, {"unet"}), ({"train": True}, set()), ({"lora": {"rank": 2}}, {"unet"})],
    ids=["frozen", "trained", "with LoRA"],
)
def test_the_base_is_what_was_loaded_and_stays(tmp_path: Path, unet_config: dict[str, object], parts: set[str]) -> None:
    store(tmp_path, 1)
    model = AdapterModel.of(tiny.configuration(settings(Path("/data"), tmp_path, 2, **unet_config)))
    assert base_of(model).keys() == parts
    assert base_of(AdapterModel.of(tiny.configuration(tiny.settings()))) == {}


def test_low_rank_weights_change_nothing_of_the_base(tmp_path: Path) -> None:
    store(tmp_path, 1)
    without, beside = (
        AdapterModel.of(tiny.configuration(settings(Path("/data"), tmp_path, 2, **more)))
        for more in ({}, {"lora": {"rank": 2}})
    )
    assert base_of(without) == base_of(beside)


@given(
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=40, unique=True),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.data(),
)
def test_a_digest_is_of_the_values_whatever_their_order(
    bits: list[int], dtype: torch.dtype, data: st.DataObject
) -> None:
    values = torch.tensor(bits, dtype=torch.int16).to(torch.float32).to(dtype)
    order = data.draw(st.permutations(range(len(bits))))
    changed = values.clone()
    at = data.draw(st.integers(0, len(bits) - 1))
    changed[at] = torch.nextafter(changed[at], torch.tensor(torch.inf, dtype=dtype))
    digest, moved, other = base_digests.digests([values, values[list(order)], changed]).values()
    assert digest == moved
    assert digest != other or torch.equal(values, changed)
    assert list(base_digests.digests([nn.Parameter(values)]).values()) == [digest]


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0]), min_size=2, max_size=30),
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0]), min_size=2, max_size=30),
)
def test_equal_values_do_not_cancel_each_other(one: list[float], other: list[float]) -> None:
    first, second = base_digests.digests([torch.tensor(one), torch.tensor(other)]).values()
    assert (first == second) == (sorted(one) == sorted(other) or sorted(_weighty(one)) == sorted(_weighty(other)))


def _weighty(values: list[float]) -> list[float]:
    """Zeros have no bits; shapes, which a digest is not of, tell their number."""
    return [value for value in values if value != 0]


def test_a_base_of_ones_is_none_of_twos(tmp_path: Path) -> None:
    bases = []
    for value in (1.0, 2.0):
        store(tmp_path, 1)
        model = AdapterModel.of(tiny.configuration(settings(Path("/data"), tmp_path, 2)))
        with torch.no_grad():
            for parameter in model.unet.parameters():
                parameter.fill_(value)
        bases.append(base_of(model)["unet"])
    assert bases[0] != bases[1]
    assert base_digests.differs(*bases)


def test_a_digest_of_an_older_checkpoint_is_the_first_half_of_ours() -> None:
    assert not base_digests.differs("0123456789abcdef", "0123456789abcdef-0011223344556677")
    assert base_digests.differs("0123456789abcdee", "0123456789abcdef-0011223344556677")
    assert not base_digests.differs("0123456789abcdef", None)
