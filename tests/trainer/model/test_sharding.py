"""FSDP: trains what DDP trains, saves a file for each rank, and goes on with any number of ranks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from adapter_trainer.checkpoint import checkpoint_folder, tensor_files
from adapter_trainer.errors import DamagedCheckpoint
from adapter_trainer.model import sharding, weights
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.sampling import sample
from tests.trainer.support import runs, tiny
from tests.trainer.support.encoded import settings as cached
from tests.trainer.support.tiny import Settings

STEPS, HALF = 6, 3
FSDP = {"optimization": {"parallelism": "FSDP"}}


@pytest.fixture(scope="module")
def settings(data: Path) -> Settings:
    """Trained UNet, conditioner and adapter, an average, accumulated gradients, and a grid with each checkpoint."""
    return tiny.settings(
        data,
        {
            "model": {"params": {"adapters_config": {"style": {"column": "shape"}}}},
            "optimization": {
                "train_batch_size": 1, "gradient_accumulation_steps": 2, "max_train_steps": STEPS, "ema": {"decay": 0.9},
            },
            "checkpoint": {"save_steps": HALF},
            "sampling": {"rows": [{"digit": 1}], "images_per_row": 1, "steps": 2},
        },
    )  # fmt: skip


def sharded(settings: Settings, **more: object) -> Settings:
    return tiny.merged(tiny.merged(settings, FSDP), {"optimization": more})


def state(folder: Path) -> dict[str, np.ndarray]:
    """All tensors, whichever file they are in."""
    tensors = tensor_files.stored(folder)
    parts, averages = weights.weights_in(sample.load(folder).model, tensors.part)
    found = {f"optimizer:{name}": value for name, value in tensors.part("optimizer").items()}
    found |= {f"{part}:{name}": value for part, own in parts.items() for name, value in own.items()}
    found |= {f"ema:{name}": value for name, value in averages.items()}
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of two processes with DDP."""
    output = tmp_path_factory.mktemp("whole")
    runs.finish(settings, [output] * 2, folder=output)
    return output


@pytest.fixture(scope="module")
def shards(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of two processes with FSDP."""
    output = tmp_path_factory.mktemp("shards")
    runs.finish(sharded(settings), [output] * 2, folder=output)
    return output


def losses_agree(got: Path, expected: Path, first: int = 1) -> None:
    theirs = {step: loss for step, loss in runs.losses(expected).items() if step >= first}
    ours = {step: loss for step, loss in runs.losses(got).items() if step >= first}
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)


@pytest.mark.process
def test_a_sharded_run_trains_what_a_whole_one_trains(shards: Path, whole: Path) -> None:
    losses_agree(shards, whole)
    ours, theirs = state(shards / f"checkpoint-{STEPS}"), state(whole / f"checkpoint-{STEPS}")
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.startswith("optimizer")):
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    drawn = shards / "samples" / f"step-{STEPS}.png"
    assert drawn.exists()


def test_weights_that_lie_channels_last_as_on_a_gpu_are_sharded_all_the_same(
    settings: Settings, tmp_path: Path
) -> None:
    model = AdapterModel.of(tiny.configuration(settings))
    model.unet.to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sharding.shard(model, "cpu", 1)
        after = {name: sharding.rows_of(value) for name, value in model.unet.state_dict().items()}
    finally:
        distributed.destroy_process_group()
    assert sharding.is_sharded(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.process
def test_every_rank_writes_its_own_share_of_the_state(shards: Path) -> None:
    folder = shards / f"checkpoint-{STEPS}"
    parts = {name for name in tensor_files.names_in(folder) if "of-00002" in name}
    stems = ("ema", "model/adapter-style", "model/label_to_token", "model/unet", "optimizer")
    assert parts == {f"{stem}.shard-{rank:05d}-of-00002.safetensors" for stem in stems for rank in (0, 1)}
    sizes = [sum(value.numel() for value in load_file(folder / f"model/unet.shard-0000{rank}-of-00002.safetensors").values()) for rank in (0, 1)]  # fmt: skip
    assert min(sizes) > 0.4 * sum(sizes)


@pytest.mark.process
def test_a_sharded_run_resumes_bit_by_bit(settings: Settings, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    runs.finish(sharded(settings, max_train_steps=HALF), [output] * 2, folder=tmp_path)
    runs.finish(sharded(settings), [output] * 2, "--resume_from_checkpoint", "latest", folder=tmp_path)
    assert runs.losses(output) == runs.losses(shards)
    assert runs.tensors_of(output / f"checkpoint-{STEPS}") == runs.tensors_of(shards / f"checkpoint-{STEPS}")


@pytest.mark.process
@pytest.mark.parametrize("ranks", [1, 3])
def test_any_number_of_ranks_reads_a_sharded_checkpoint_exactly(
    settings: Settings, shards: Path, tmp_path: Path, ranks: int
) -> None:
    source, output = shards / f"checkpoint-{HALF}", tmp_path / "output"
    output.mkdir()
    runs.finish(
        sharded(settings, max_train_steps=HALF), [output] * ranks, "--resume_from_checkpoint", str(source), folder=tmp_path
    )  # fmt: skip
    expected, got = state(source), state(output / f"checkpoint-{HALF}")
    assert expected.keys() == got.keys()
    assert all(np.array_equal(got[name], value) for name, value in expected.items())


@pytest.mark.process
def test_one_process_goes_on_with_what_two_have_sharded(settings: Settings, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(shards / f"checkpoint-{HALF}", output / f"checkpoint-{HALF}")
    same_batch = sharded(settings, gradient_accumulation_steps=4)
    runs.finish(same_batch, [output], "--resume_from_checkpoint", "latest", folder=tmp_path)
    losses_agree(output, shards, first=HALF + 1)
    assert (output / f"checkpoint-{STEPS}" / "model" / "unet.safetensors").exists()


@pytest.mark.process
def test_a_whole_checkpoint_is_continued_in_shards(settings: Settings, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(whole / f"checkpoint-{HALF}", output / f"checkpoint-{HALF}")
    runs.finish(sharded(settings), [output] * 2, "--resume_from_checkpoint", "latest", folder=tmp_path)
    losses_agree(output, whole, first=HALF + 1)


@pytest.fixture(scope="module")
def nodes(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Outputs of a run of two nodes that share no folder."""
    outputs = [tmp_path_factory.mktemp("node") for _ in range(2)]
    runs.finish(sharded(settings), outputs, folder=outputs[0])
    return outputs


@pytest.mark.process
def test_nodes_that_hold_only_their_own_shards_resume_together(
    settings: Settings, shards: Path, nodes: list[Path], tmp_path: Path
) -> None:
    outputs = [tmp_path / "node-0", tmp_path / "node-1"]
    for output, node in zip(outputs, nodes, strict=True):
        shutil.copytree(node / f"checkpoint-{HALF}", output / f"checkpoint-{HALF}")
    assert not list((outputs[1] / f"checkpoint-{HALF}").rglob("*shard-00000*"))
    runs.finish(sharded(settings), outputs, "--resume_from_checkpoint", "latest", folder=tmp_path)
    expected = {step: loss for step, loss in runs.losses(shards).items() if step > HALF}
    assert {step: loss for step, loss in runs.losses(outputs[0]).items() if step > HALF} == expected


@pytest.mark.process
def test_nodes_of_one_start_seal_what_they_save_as_of_one_pass_and_those_of_another_as_of_another(
    nodes: list[Path], shards: Path
) -> None:
    passes = [
        {held.pass_id for held in checkpoint_folder.complete_steps(output).values()} for output in (*nodes, shards)
    ]
    assert passes[0] == passes[1] != passes[2]
    assert [len(each) for each in passes] == [1, 1, 1]


@pytest.mark.process
def test_a_lost_node_takes_its_shards_with_it_and_an_older_whole_checkpoint_is_used(nodes: list[Path]) -> None:
    whole, lost = (checkpoint_folder.complete_steps(node) for node in nodes)
    assert checkpoint_folder.newest_of([whole, lost]) == STEPS
    del lost[STEPS]
    assert checkpoint_folder.newest_of([whole, lost]) == HALF
    assert checkpoint_folder.newest_of([whole]) is None


@pytest.mark.process
def test_a_checkpoint_with_a_missing_share_says_which(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-6"
    shutil.copytree(shards / f"checkpoint-{STEPS}", folder)
    (folder / "model" / "unet.shard-00001-of-00002.safetensors").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"model/unet\.shard-00001-of-00002\.safetensors is"):
        tensor_files.stored(folder)


@pytest.mark.process
def test_pictures_are_drawn_from_a_sharded_checkpoint(shards: Path) -> None:
    model = sample.load(shards / f"checkpoint-{STEPS}", "cpu").model
    averaged = state(shards / f"checkpoint-{STEPS}")
    name, parameter = next(iter(model.unet.named_parameters()))
    assert torch.equal(parameter, torch.from_numpy(averaged[f"ema:unet.{name}"]))


@pytest.mark.process
def test_the_seal_of_a_node_lists_its_ranks_shards(shards: Path) -> None:
    seal = json.loads((shards / f"checkpoint-{STEPS}" / "complete-rank-00000.json").read_text(encoding="utf-8"))
    assert "optimizer.shard-00001-of-00002.safetensors" in seal["files"]


@pytest.mark.process
def test_shards_train_from_the_cache_as_whole_weights_do(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    given = tiny.merged(cached(data, tokenizer), {"model": {"params": {"unet_config": {"train": True}}}})
    given["optimization"] |= {"max_train_steps": 4, "train_batch_size": 2}
    for name, changed in (("whole", given), ("shards", sharded(given))):
        runs.finish(changed, [tmp_path / name] * 2, folder=tmp_path)
    losses_agree(tmp_path / "shards", tmp_path / "whole")
    assert list((tmp_path / "shards" / "cache").rglob("*.safetensors"))
