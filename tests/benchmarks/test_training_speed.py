"""The benchmark of training runs from end to end, so that a machine with a GPU needs no more than to start it."""

from dataclasses import replace

import pytest
import torch

from benchmarks import shapes, training_speed
from benchmarks.shapes import Scale


@pytest.fixture
def smallest() -> Scale:
    tiny = shapes.tiny()
    return replace(tiny, batch_size=2)


@pytest.mark.parametrize("which", ["reference", "cached"])
def test_a_contestant_is_measured_on_a_device(which: training_speed.Which, smallest: Scale) -> None:
    figures = training_speed.on_device(smallest, which, torch.device("cpu"), steps=1)
    assert figures["speed"] > 0
    assert figures["flops"] > 1e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    assert "there was no GPU on this machine" in training_speed.compare_on_gpu()


def test_sdxls_shapes_are_a_valid_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("data")
    config = shapes.configuration(folder, shapes.sdxl(1024, 1), "on")
    assert config.model.params.unet_config.params.block_out_channels == (320, 640, 1280)
