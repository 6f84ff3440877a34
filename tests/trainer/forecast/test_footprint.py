"""Predicted memory is what the allocator gives out; the real SDXL's is known before it is loaded."""

import bisect
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from adapter_api.document import read, validate
from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import footprint
from adapter_trainer.forecast.device_speed import KNOWN
from adapter_trainer.forecast.forecast import forecast
from adapter_trainer.forecast.live_bytes import LiveBytes
from adapter_trainer.training import loop, setup
from tests.support.repository import CONFIGS
from tests.trainer.support import encoded, tiny


def allocated_peak(work: Callable[[], object]) -> int:
    """Return the most bytes that were held at the same time between two operators of `work`, as PyTorch's profiler saw it.

    What an operator takes and gives back before it ends depends on the processor: one without bfloat16 arithmetic
    convolves by way of large intermediate matrices.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = work()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    held = list(itertools.accumulate(nbytes for _, nbytes in changes))
    moments = [moment for moment, _ in changes]
    spans = sorted((each.start_ns(), each.end_ns()) for each in events if each.name().startswith("aten::"))
    peak = end = 0
    for start, stop in spans:
        if start >= end:  # not inside another operator
            end = stop
            peak = max(peak, held[bisect.bisect_right(moments, end) - 1])
    del kept
    return peak


def wide(data: Path, precision: str, *, checkpointing: bool = False) -> TrainingConfig:
    """Tensors large enough that they, and not bookkeeping, are what is held."""
    adapter = {"style": {"column": "shape", "projector": {"target": "Linear", "params": {"num_tokens": 2}}}}
    unet = {"train": False, "gradient_checkpointing": checkpointing}
    changes = {
        "model": {"params": {"adapters_config": adapter, "unet_config": unet}},
        "data": {"params": {"resolution": 32}},
        "optimization": {"mixed_precision": precision},
    }
    return tiny.configuration(tiny.settings(data, changes))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_what_a_step_holds_is_what_the_allocator_gives_out(
    tmp_path: Path, precision: str, *, checkpointing: bool
) -> None:
    config = wide(tiny.write_data(tmp_path / "data"), precision, checkpointing=checkpointing)
    run = setup.prepare(config, setup.RunOptions(tmp_path / "output", show=lambda _: None))
    batch = next(run.batches)

    def step() -> None:
        loop.losses_of(run.module, run.state.model, run.schedule, batch, run.nulls).mean().backward()
        run.state.optimizer.zero_grad()

    step()
    real = allocated_peak(step)
    held = footprint.footprint(config, device="cpu").steps
    predicted = held["activations"] + held.get("their copies in lower precision", 0)
    # Gradients are there only once activations have begun to go.
    assert predicted <= real * 1.05
    assert real <= (predicted + held["gradients"]) * 1.25


def test_live_bytes_are_those_that_the_allocator_has_given_out() -> None:
    layers = [torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.LayerNorm(256), torch.nn.Linear(256, 64)]
    network, inputs = torch.nn.Sequential(*layers), torch.randn(512, 64)

    def step() -> None:
        network(inputs).square().mean().backward()
        network.zero_grad()

    step()
    live = LiveBytes([*network.parameters(), inputs])
    with live:
        step()
    assert live.now == 0
    assert live.peak == pytest.approx(allocated_peak(step), rel=0.02)
    with live:
        kept = network(inputs)
    assert live.now > kept.nbytes
    del kept
    assert live.now == 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("sdxl-*.yaml")), ids=lambda path: path.stem)
def test_every_published_configuration_can_be_planned(path: Path) -> None:
    given = validate(TrainingConfig, read(path)).model_dump(mode="json")
    # One transformer block where SDXL has up to ten equal ones in a row: all of them are counted in the test below.
    shallow = {"model": {"params": {"unet_config": {"params": {"transformer_layers_per_block": [1, 1, 1]}}}}}
    found = footprint.footprint(TrainingConfig.model_validate(tiny.merged(given, shallow)))
    assert found.steps["frozen weights"] == pytest.approx(2 * 640.6e6, rel=0.01)
    assert set(found.phases) == {"training", "encoding"}
    assert found.bytes == max(found.phases.values())


def test_sdxl_at_1024_fits_24_gb_in_every_phase() -> None:
    given = validate(TrainingConfig, read(CONFIGS / "sdxl-ip-adapter.yaml")).model_dump(mode="json")
    changed = {"optimization": {"train_batch_size": 1}, "sampling": {"rows": [{"caption": "a picture"}]}}
    found = forecast(TrainingConfig.model_validate(tiny.merged(given, changed)), KNOWN["rtx4090"])
    assert found.held.steps["frozen weights"] == pytest.approx(2 * 2567.5e6, rel=0.01)
    assert set(found.held.phases) == {"training", "encoding", "drawing"}
    assert found.held.bytes == max(found.held.phases.values())
    assert 18e9 < found.memory < 24e9
    assert all(held + found.libraries < 24e9 for held in found.held.phases.values())
    parts = ("trained weights", "optimizer", "average of the weights")
    assert found.held.host == sum(found.held.steps[name] for name in parts) > 5e9


def test_large_pictures_are_encoded_in_the_room_of_one(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = encoded.settings(tmp_path, tokenizer, resolution=64)
    given["data"]["params"]["cache"]["batch_size"] = 16
    config = tiny.configuration(given)
    together = footprint.footprint(config).encoding
    monkeypatch.setattr("adapter_trainer.model.first_stage.PIXELS_AT_ONCE", 64 * 64)
    one_by_one = footprint.footprint(config).encoding
    assert one_by_one["activations"] < together["activations"] / 4
    assert one_by_one["encoders"] == together["encoders"] > 0


def test_a_cache_frees_the_encoders_and_steps_without_it_hold_them(tmp_path: Path, tokenizer: Path) -> None:
    with_cache, without = (
        footprint.footprint(tiny.configuration(encoded.settings(tmp_path, tokenizer, mode))) for mode in ("on", "off")
    )
    assert "encoders" not in with_cache.steps
    assert without.steps["encoders"] == with_cache.encoding["encoders"] > 0
    assert set(without.phases) == {"training"}


def test_gradient_checkpointing_keeps_a_fraction_of_the_activations(tmp_path: Path) -> None:
    plain, checkpointed = (
        footprint.footprint(wide(tmp_path, "bf16", checkpointing=flag)).steps["activations"] for flag in (False, True)
    )
    assert checkpointed < plain / 2


def test_gpus_keep_more_than_processors_because_they_normalise_in_float32(tmp_path: Path) -> None:
    gpu, processor = (footprint.footprint(wide(tmp_path, "bf16"), device=device) for device in ("cuda", "cpu"))
    assert processor.steps["checkpoint on its way to the disk"] == gpu.host > processor.host == 0
    assert 1.1 < gpu.steps["activations"] / processor.steps["activations"] < 1.6


def test_fsdp_shares_out_what_is_trained_and_counts_what_is_gathered() -> None:
    settings = tiny.settings(changes={"optimization": {"parallelism": "FSDP", "ema": {}}})
    trained = footprint.footprint(tiny.configuration(settings)).steps["trained weights"] // 4
    whole, quarter = (footprint.footprint(tiny.configuration(settings), world_size).steps for world_size in (1, 4))
    shared = ("trained weights", "gradients", "optimizer", "average of the weights")
    assert [quarter[name] for name in shared] == [-(-trained // 4) * each for each in (4, 4, 8, 4)]
    assert "gathered from other processes" not in whole
    assert 0 < quarter["gathered from other processes"] < 3 * 4 * trained
    assert quarter["activations"] == whole["activations"]
    ddp = tiny.configuration(tiny.settings(changes={"optimization": {"ema": {}}}))
    assert footprint.footprint(ddp, 4).steps == whole
