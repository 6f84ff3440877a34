"""The benchmark of training runs from end to end, so that a machine with a GPU needs no more than to start it."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import contestants, real_shapes, shapes
from benchmarks.shapes import Scale


@pytest.fixture
def smallest() -> Scale:
    """The small scale with few layers of each kind, on pictures of half the side."""
    tiny = shapes.tiny()
    params = json.loads(json.dumps(tiny.params))
    params["unet_config"]["params"]["transformer_layers_per_block"] = [1, 1, 1]
    params["image_encoder_config"]["params"]["num_hidden_layers"] = 2
    return replace(tiny, batch_size=2, resolution=64, params=params)


@pytest.mark.parametrize("which", ["reference", "cached"])
def test_a_contestant_is_measured_on_a_device(which: contestants.Which, smallest: Scale) -> None:
    figures = contestants.on_device(smallest, which, torch.device("cpu"), steps=1)
    assert figures["speed"] > 0
    assert figures["flops"] > 1e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_shapes, "GPU_SCALES", ((1024, 1),))
    said = real_shapes.compare_on_gpu()
    assert "there was no GPU on this machine" in said
    assert "| 1024², batch 1 | 18." in said


def test_sdxls_shapes_are_a_valid_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("data")
    config = shapes.configuration(folder, shapes.sdxl(1024, 1), "on")
    assert config.model.params.unet_config.params.block_out_channels == (320, 640, 1280)
