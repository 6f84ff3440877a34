"""Adapters and token conditioners begin with what a checkpoint, an export or a published file holds."""

from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import ip_adapter_file
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.publishing import base_folder
from adapter_trainer.sampling import sample
from tests.trainer.support import runs, tiny

pytestmark = pytest.mark.process

ADAPTER = {"style": {"column": "shape", "projector": {"target": "Linear"}}}
"""Four tokens: pipelines load it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def given(data: Path, adapters: Mapping[str, object] = ADAPTER, **more: object) -> tiny.Settings:
    return tiny.merged(tiny.settings(data, {"model": {"params": {"adapters_config": adapters}}}), more)


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that kept an average."""
    output = tmp_path_factory.mktemp("output")
    average = {"ema": {"decay": 0.5, "warmup": False}, "learning_rate": 0.05}
    assert runs.train_here(given(data, optimization=average), output) == 0
    return output / "checkpoint-3"


def beginning(data: Path, source: Path, adapter: str = "style") -> AdapterModel:
    """A model of another seed whose conditions begin with `source`."""
    adapters = {adapter: {**ADAPTER["style"], "pretrained": str(source)}}
    conditioner = {"label_to_token": {"pretrained": str(source)}} if source.is_dir() else {}
    settings = given(data, adapters, seed=99)
    return AdapterModel.of(
        tiny.configuration(tiny.merged(settings, {"model": {"params": {"token_conditioners": conditioner}}}))
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_they_begin_with_what_a_checkpoint_draws_with(data: Path, checkpoint: Path) -> None:
    drawing, begun = sample.load(checkpoint).model, beginning(data, checkpoint)
    assert same(begun.adapters["style"], drawing.adapters["style"])
    assert same(begun.token_conditioners["label_to_token"], drawing.token_conditioners["label_to_token"])
    assert not same(begun.unet, drawing.unet)  # the rest is the seed's


def test_they_begin_with_what_an_export_holds_under_any_name_where_there_is_one(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    sampler = sample.load(checkpoint)
    base_folder.write(sampler, tmp_path, "base")
    begun = beginning(data, tmp_path, adapter="other")
    assert same(begun.adapters["other"], sampler.model.adapters["style"])
    assert same(begun.token_conditioners["label_to_token"], sampler.model.token_conditioners["label_to_token"])


def test_an_adapter_begins_with_a_published_file_and_keeps_its_own_null(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    published: dict[str, Tensor] = {
        name: value
        for name, value in load_file(checkpoint / "ip_adapter.safetensors").items()
        if name != ip_adapter_file.NULL
    }
    save_file(published, tmp_path / "ip-adapter_tiny.safetensors")
    begun = beginning(data, tmp_path / "ip-adapter_tiny.safetensors")
    state, theirs = begun.adapters["style"].state_dict(), sample.load(checkpoint).model.adapters["style"].state_dict()
    assert all(torch.equal(state[name], theirs[name]) for name in state if not name.endswith("null_tokens"))


def test_a_checkpoint_draws_when_what_its_conditions_began_with_is_gone(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes((checkpoint / "ip_adapter.safetensors").read_bytes())
    adapters = {"style": {**ADAPTER["style"], "pretrained": str(source), "train": False}}
    assert runs.train_here(given(data, adapters), tmp_path / "output") == 0
    source.unlink()
    kept = sample.load(tmp_path / "output" / "checkpoint-3").model
    assert same(kept.adapters["style"], sample.load(checkpoint).model.adapters["style"])


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"pretrained": "nowhere"}, r"there is no nowhere; name a checkpoint folder"),
        (
            {"projector": {"params": {"num_tokens": 3}}},
            r"proj\.weight \(64, 5\), not \(48, 5\): it was made with another",
        ),
        ({"projector": {"target": "MLP"}}, r"has no tokens\.projector\.proj\.0\.weight: it was made with another"),
    ],
    ids=["not there", "another number of tokens", "another projector"],
)
def test_what_does_not_fit_names_field_and_file(
    data: Path, checkpoint: Path, adapter: tiny.Settings, message: str
) -> None:
    source = str(checkpoint / "ip_adapter.safetensors")
    adapters = {"style": tiny.merged({**ADAPTER["style"], "pretrained": source}, adapter)}
    with pytest.raises(InvalidConfig, match=rf"^model\.params\.adapters_config\.style.*{message}"):
        AdapterModel.of(tiny.configuration(given(data, adapters)))


def test_features_of_another_width_name_the_encoders_that_give_them(data: Path, checkpoint: Path) -> None:
    source = str(checkpoint / "ip_adapter.safetensors")
    columns = [tiny.LABEL_COLUMN, {"name": "wide", "kind": "vector", "width": 1280}]
    adapters = {"style": {"column": "wide", "projector": {"target": "Linear"}, "pretrained": source}}
    with pytest.raises(
        InvalidConfig, match=r"features that are 5 wide, and here they are 1280 wide \(CLIP ViT-bigG, pooled"
    ):
        AdapterModel.of(
            tiny.configuration(tiny.merged(given(data, adapters), {"data": {"params": {"columns": columns}}}))
        )


def test_an_adapter_begins_with_a_file_of_a_hub_repository(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--adapters"
    snapshot = repository / "snapshots" / "0123456789012345678901234567890123456789"
    (snapshot / "sdxl").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / "sdxl" / "style.safetensors").write_bytes((checkpoint / "ip_adapter.safetensors").read_bytes())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    begun = beginning(data, Path("someone/adapters/sdxl/style.safetensors"))
    assert same(begun.adapters["style"], sample.load(checkpoint).model.adapters["style"])
    with pytest.raises(
        InvalidConfig, match=r"style\.pretrained: .*other\.safetensors is neither a file here nor one on the hub"
    ):
        beginning(data, Path("someone/adapters/sdxl/other.safetensors"))


def test_a_folder_without_that_condition_says_so(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    save_file(load_file(checkpoint / "ip_adapter.safetensors"), tmp_path / "ip_adapter.safetensors")
    with pytest.raises(InvalidConfig, match=r"label_to_token\.pretrained: .* holds no weights of label_to_token"):
        beginning(data, tmp_path)
