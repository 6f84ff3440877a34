"""Counted work: what is predicted with fake tensors is what a real pass computes and keeps."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import flop_count
from adapter_trainer.forecast.assumptions import known
from adapter_trainer.forecast.device_speed import KNOWN, known_device, measured_bandwidth
from adapter_trainer.forecast.forecast import EFFICIENCY, forecast, update_bytes
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny

ADAPTERS = {
    "style": {"column": "shape", "projector": {"target": "Linear", "params": {"num_tokens": 2}}},
    "look": {"column": "image", "projector": {"target": "PerceiverResampler", "params": {"num_tokens": 3, "heads": 2}}},
}
CHANGES = {"model": {"params": {"adapters_config": ADAPTERS, "image_encoder_config": tiny.IMAGE_ENCODER}}}


def sdxl(**changes: object) -> TrainingConfig:
    """SDXL base with IP-Adapter Plus, as its reference trains it."""
    projector = {"target": "PerceiverResampler", "params": {"num_tokens": 16, "hidden_dim": 1280, "heads": 20}}
    params = {
        "pretrained_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0",
        "image_encoder_config": {"pretrained": "h94/IP-Adapter"},
        "adapters_config": {"plus": {"projector": projector}},
        **changes,
    }
    return TrainingConfig.model_validate({"model": {"params": params}, "optimization": {"mixed_precision": "bf16"}})


@pytest.fixture(scope="module")
def planned() -> flop_count.Work:
    return flop_count.count(sdxl())


def test_counted_flops_are_those_of_a_real_pass(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    in_the_loop = {"data": {"params": {"cache": {"mode": "off"}}}}
    config = tiny.configuration(tiny.merged(tiny.settings(data, CHANGES), in_the_loop))
    run = setup.prepare(config, setup.RunOptions(tmp_path / "output", show=lambda _: None))
    batch = next(run.batches)
    with FlopCounterMode(display=False) as counter:
        loss = loop.losses_of(run.module, run.state.model, run.schedule, batch, run.nulls).mean()
        encoding_and_forward = counter.get_total_flops()
        loss.backward()
    work = flop_count.count(config)
    trained = sum(parameter.numel() for _, parameter in run.state.trained())
    assert work.trained_parameters == trained
    # Both adapters read the one image encoder, whose output a real pass asks for each of them.
    assert work.forward_flops + work.encode_flops == pytest.approx(encoding_and_forward, rel=0.02)
    assert work.backward_flops == pytest.approx(counter.get_total_flops() - encoding_and_forward, rel=0.02)


def test_patches_of_pixels_are_counted_as_the_positions_that_they_are() -> None:
    patched = {
        "first_stage_config": {"patch_size": 2},
        "unet_config": {"params": {"in_channels": 4, "out_channels": 4}},
    }
    small = flop_count.count(tiny.configuration(tiny.settings()))
    large = {"data": {"params": {"resolution": 16}}}
    whole = flop_count.count(tiny.configuration(tiny.settings(changes=large)))
    work = flop_count.count(tiny.configuration(tiny.settings(changes={**large, "model": {"params": patched}})))
    # As many positions as the small picture; only the first and the last convolution have more channels.
    assert small.forward_flops < work.forward_flops < 1.1 * small.forward_flops < whole.forward_flops / 2


def test_sdxl_is_counted_without_loading_it(planned: flop_count.Work) -> None:
    assert planned.forward_flops == pytest.approx(6.79e12, rel=0.01)
    assert planned.frozen_parameters == pytest.approx(2567.5e6 + 632.1e6 + 817.7e6, rel=0.001)
    assert planned.trained_parameters > 340.8e6
    assert 4.5e12 < planned.encode_flops < 6e12
    assert any("h94/IP-Adapter is a CLIP ViT-H/14" in line for line in planned.assumed)


@pytest.mark.parametrize(
    ("source", "said", "width"),
    [
        ({"pretrained": "h94/IP-Adapter", "subfolder": "sdxl_models/image_encoder"}, "a CLIP ViT-bigG/14", 1280),
        ({"pretrained": "h94/IP-Adapter", "subfolder": "models/image_encoder"}, "a CLIP ViT-H/14", 1024),
        ({"pretrained": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"}, "a CLIP ViT-bigG/14", 1280),
        ({"pretrained": "openai/clip-vit-large-patch14"}, "a CLIP ViT-L/14", 768),
    ],
    ids=["bigG by its subfolder", "H by its subfolder", "bigG by its name", "L by its name"],
)
def test_published_image_encoders_are_told_apart_by_name_and_subfolder(
    source: dict[str, str], said: str, width: int
) -> None:
    changes = {"model": {"params": {"adapters_config": {"ip": {}}, "image_encoder_config": source}}}
    given = known(tiny.configuration(tiny.settings(changes=changes)))
    encoder = given.config.model.params.image_encoder_config
    assert encoder is not None
    assert encoder.params.projection_dim == width
    assert any(line.endswith(f"is {said}") for line in given.assumed)


def test_text_encoders_are_counted_as_they_are_configured_and_trained_ones_both_ways() -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "vocab_size": 100}
    encoder = {"target": "CLIPTextModelWithProjection", "tokenizer": "none", "params": shape}
    frozen, trained = (
        flop_count.count(
            tiny.configuration(
                tiny.settings(
                    changes={"model": {"params": {"text_config": {"encoders": [{**encoder, "train": train}]}}}}
                )
            )
        )
        for train in (False, True)
    )
    without = flop_count.count(tiny.configuration(tiny.settings()))
    size = frozen.frozen_parameters - without.frozen_parameters
    assert 5_000 < size < 20_000
    assert trained.trained_parameters - without.trained_parameters == size
    assert frozen.encode_flops > without.encode_flops
    assert trained.learning_flops == 3 * (frozen.encode_flops - without.encode_flops)
    assert not frozen.assumed


def test_a_model_in_object_storage_is_counted_by_its_parameters_and_that_is_said() -> None:
    named = {"model": {"params": {"unet_config": {"pretrained": "s3://models/tiny"}}}}
    found = flop_count.count(tiny.configuration(tiny.settings(changes=named)))
    assert found.forward_flops == flop_count.count(tiny.configuration(tiny.settings())).forward_flops
    assert any("unet_config: s3://models/tiny has the shape that `params` give" in line for line in found.assumed)


def test_what_training_starts_from_is_not_fetched_to_count() -> None:
    adapters = {"look": {"pretrained": "someone/adapters/look.safetensors", "column": "shape"}}
    given = tiny.settings(changes={"model": {"params": {"adapters_config": adapters}}})
    config = tiny.configuration(given)
    assert config.model.params.adapters_config["look"].pretrained is not None
    assert known(config).config.model.params.adapters_config["look"].pretrained is None


def test_gradient_checkpointing_computes_more() -> None:
    plain, checkpointed = (
        flop_count.count(
            tiny.configuration(
                tiny.settings(changes={"model": {"params": {"unet_config": {"gradient_checkpointing": flag}}}})
            )
        )
        for flag in (False, True)
    )
    assert checkpointed.backward_flops > plain.backward_flops


def test_a_named_device_gives_seconds_from_its_peak() -> None:
    device = KNOWN["h100"]
    found = forecast(tiny.configuration(tiny.settings()), device)
    work = found.work
    passes = work.forward_flops + work.backward_flops
    assert found.seconds_per_pass == pytest.approx(passes / (EFFICIENCY * device.float32_flops))
    assert found.available == device.memory


def test_a_small_model_is_timed_on_this_machine() -> None:
    ticks = iter(range(1000))
    found = forecast(tiny.configuration(tiny.settings()), None, clock=lambda: float(next(ticks)))
    if not torch.accelerator.is_available():
        assert found.seconds_per_pass == 1.0
        assert "timed" in found.basis
        assert found.device == "this machine (cpu, 1 thread)"


def test_the_job_s_threads_are_timed_and_given_back() -> None:
    ticks, before = iter(range(1000)), torch.get_num_threads()
    found = forecast(tiny.configuration(tiny.settings()), None, clock=lambda: float(next(ticks)), threads=2)
    if not torch.accelerator.is_available():
        assert found.device == "this machine (cpu, 2 threads)"
    assert torch.get_num_threads() == before


def test_the_optimizer_s_step_takes_as_long_as_memory_takes_to_read_and_write() -> None:
    plain = {"optimization": {"max_grad_norm": None}}
    config = tiny.configuration(tiny.settings(changes=plain))
    found = forecast(config, KNOWN["l4"])
    trained = found.work.trained_parameters
    assert found.seconds_of_update == pytest.approx(trained * 28 / KNOWN["l4"].bandwidth)
    kept = {"optimization": {"ema": {}, "optimizer": {"target": "Prodigy"}, "learning_rate": 1.0}}
    more = update_bytes(tiny.configuration(tiny.settings(changes=kept)), trained, 1)
    assert more == trained * (40 + 12 + 12)
    shared = tiny.configuration(
        tiny.settings(changes={"optimization": {**plain["optimization"], "parallelism": "FSDP"}})
    )
    assert update_bytes(shared, trained, 4) == trained * 28 / 4


def test_a_machine_s_memory_is_measured_with_the_clock_that_is_given() -> None:
    times = iter(range(100))
    assert measured_bandwidth(torch.device("cpu"), lambda: float(next(times))) == 2 * 4 * 2**24


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("Tesla V100-SXM2-16GB", "NVIDIA V100"),
        ("Tesla T4", "NVIDIA T4"),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_reports(reported: str, expected: str) -> None:
    device = known_device(reported)
    assert device is not None
    assert device.name == expected


def test_an_unknown_device_is_not_guessed() -> None:
    assert known_device("Radeon 7") is None
