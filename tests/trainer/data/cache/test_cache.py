"""Training from the cache is training: the same losses, whatever happens to the cache, on one process or two."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from adapter_trainer.data.cache import encode, shards
from adapter_trainer.data.cache.encodings import Encoding
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import StopRequest
from adapter_trainer.errors import DamagedCache, DiskFull, InvalidConfig
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny
from tests.trainer.support.encoded import settings
from tests.trainer.support.runs import finish, losses, outcome, start, tensors_of, train_here

SAMPLES = 11
CAPTIONS = SAMPLES


@pytest.fixture(scope="module")
def expected(data: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses with the encoders in every step."""
    output = tmp_path_factory.mktemp("expected") / "output"
    assert train_here(settings(data, tokenizer, "off"), output) == 0
    return losses(output)


def shard_files(output: Path) -> dict[str, list[Path]]:
    """By kind of encoding."""
    found: dict[str, list[Path]] = {}
    for path in sorted((output / "cache").rglob("*.safetensors")):
        found.setdefault(path.parent.name.rpartition("-")[0], []).append(path)
    return found


def missing(said: str) -> dict[str, int]:
    """How many encodings a start did not find, by kind."""
    return {name: int(count) for name, count in re.findall(r"encoding (\S+): (\d+) of \d+ are not", said)}


@pytest.mark.process
def test_losses_are_those_without_a_cache(
    data: Path, tokenizer: Path, tmp_path: Path, expected: dict[int, float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(settings(data, tokenizer), tmp_path / "first") == 0
    assert losses(tmp_path / "first") == pytest.approx(expected, rel=1e-5)
    everything = {"latents": 2 * SAMPLES, "text": CAPTIONS, "image-pooled": SAMPLES, "image-sequence": SAMPLES}
    assert missing(capsys.readouterr().out) == everything
    assert sorted(shard_files(tmp_path / "first")) == sorted(everything)
    again = settings(data, tokenizer, cache={"folder": str(tmp_path / "first" / "cache")}, num_workers=1)
    assert train_here(again, tmp_path / "second") == 0
    assert losses(tmp_path / "second") == losses(tmp_path / "first")
    assert missing(capsys.readouterr().out) == {}


@pytest.mark.process
def test_16_bits_a_number_lose_little(data: Path, tokenizer: Path, tmp_path: Path, expected: dict[int, float]) -> None:
    assert train_here(settings(data, tokenizer, cache={"precision": "half"}), tmp_path / "output") == 0
    assert losses(tmp_path / "output") == pytest.approx(expected, rel=1e-2)
    assert losses(tmp_path / "output") != expected


@pytest.mark.process
def test_other_encoders_find_nothing(
    data: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = {"folder": str(tmp_path / "cache")}
    assert train_here(settings(data, tokenizer, cache=cache), tmp_path / "first") == 0
    capsys.readouterr()
    other = tiny.merged(settings(data, tokenizer, cache=cache), {"seed": 4})
    assert train_here(other, tmp_path / "second") == 0
    assert missing(capsys.readouterr().out)["latents"] == 2 * SAMPLES
    wider = settings(data, tokenizer, cache=cache, resolution=24)
    assert train_here(wider, tmp_path / "third") == 0
    assert missing(capsys.readouterr().out) == {"latents": 2 * SAMPLES}


@pytest.mark.process
@pytest.mark.parametrize("kind", ["latents", "text", "image-sequence"])
def test_a_damaged_file_is_named_and_made_anew(
    kind: str,
    data: Path,
    tokenizer: Path,
    tmp_path: Path,
    expected: dict[int, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = settings(data, tokenizer, cache={"folder": str(tmp_path / "first" / "cache")})
    assert train_here(given, tmp_path / "first") == 0
    file = shard_files(tmp_path / "first")[kind][0]
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert train_here(given, tmp_path / "second") == 0
    said = capsys.readouterr().out
    assert f"{file} was damaged" in said
    assert list(missing(said)) == [kind]
    assert losses(tmp_path / "second") == pytest.approx(expected, rel=1e-5)


@pytest.mark.process
def test_a_picture_that_cannot_be_read_costs_only_itself(
    data: Path, tokenizer: Path, tmp_path: Path, expected: dict[int, float], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    whole = (mine / "7.png").read_bytes()
    (mine / "7.png").write_bytes(whole[:60])
    given = settings(mine, tokenizer, verify="none")
    assert train_here(given, tmp_path / "output") == 2
    assert re.search(r"encoding latents: \S+/7.png: 7.png cannot be decoded", outcome(tmp_path / "output").message)
    (mine / "7.png").write_bytes(whole)
    capsys.readouterr()
    assert train_here(given, tmp_path / "output") == 0
    assert 2 <= missing(capsys.readouterr().out)["latents"] < 2 * SAMPLES
    assert losses(tmp_path / "output") == pytest.approx(expected, rel=1e-5)


@pytest.mark.process
def test_a_killed_build_goes_on(
    data: Path,
    tokenizer: Path,
    tmp_path: Path,
    expected: dict[int, float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(encode, "SHARD_BYTES", 1)
    writes = iter(range(100))

    def killed(tensors: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]) -> None:
        if next(writes) == 3:
            target.write_bytes(b"half of a f")
            raise KeyboardInterrupt
        save_file(tensors, target, metadata)

    monkeypatch.setattr(shards, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        train_here(settings(data, tokenizer), tmp_path / "output")
    capsys.readouterr()
    assert train_here(settings(data, tokenizer), tmp_path / "output") == 0
    left = missing(capsys.readouterr().out)
    assert 0 < left["latents"] < 2 * SAMPLES
    assert losses(tmp_path / "output") == pytest.approx(expected, rel=1e-5)
    assert not list((tmp_path / "output" / "cache").rglob("*.tmp"))


@pytest.mark.process
def test_processes_that_share_a_folder_share_the_work(
    data: Path, tokenizer: Path, tmp_path: Path, expected: dict[int, float]
) -> None:
    outputs = [tmp_path / "output"] * 2
    given = tiny.merged(settings(data, tokenizer), {"optimization": {"train_batch_size": 2}})
    finish(given, outputs, folder=tmp_path)
    assert losses(tmp_path / "output") == pytest.approx(expected, rel=1e-4)


@pytest.mark.process
def test_nodes_with_folders_of_their_own_each_have_all(
    data: Path, tokenizer: Path, tmp_path: Path, expected: dict[int, float]
) -> None:
    outputs = [tmp_path / "node-0", tmp_path / "node-1"]
    given = tiny.merged(settings(data, tokenizer), {"optimization": {"train_batch_size": 2}})
    finish(given, outputs, folder=tmp_path)
    assert losses(outputs[0]) == pytest.approx(expected, rel=1e-4)
    assert sorted(shard_files(outputs[0])) == sorted(shard_files(outputs[1]))


@pytest.mark.process
def test_a_request_to_stop_ends_the_build(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    mine = tiny.write_data(tmp_path / "data", samples=3000)
    given = settings(mine, tokenizer, verify="none")
    run = start(given, [tmp_path / "output"], folder=tmp_path)
    while "latents: 6000 of" not in run.said:
        assert run.processes[0].is_alive(), run.said
    run.terminate()
    assert run.wait() == [75]
    assert "before the first step" in outcome(tmp_path / "output").message
    assert shard_files(tmp_path / "output")["latents"]


@pytest.mark.process
@pytest.mark.parametrize("mode", ["on", "auto"])
def test_room_is_asked_for_before_the_build(
    mode: str,
    data: Path,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 500, 500))
    code = train_here(settings(data, tokenizer, mode), tmp_path / "output")
    captured = capsys.readouterr()
    assert "has 0.0 MiB free, the cache needs" in captured.out + captured.err
    assert (code, outcome(tmp_path / "output").reason) == ((1, "DiskFull") if mode == "on" else (0, "Complete"))
    assert not shard_files(tmp_path / "output")


@pytest.mark.process
def test_what_is_damaged_while_training_is_told_and_mended_by_the_next_start(
    data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    given = settings(data, tokenizer)
    config = tiny.configuration(given)
    run = setup.prepare(config, setup.RunOptions(tmp_path / "output", show=lambda _: None))
    for file in shard_files(tmp_path / "output")["latents"]:
        content = bytearray(file.read_bytes())
        content[-3:] = b"abc"
        file.write_bytes(content)
    with pytest.raises(DamagedCache, match="run again"):
        loop.train(run)
    assert train_here(given, tmp_path / "output") == 0


@pytest.mark.process
def test_auto_keeps_nothing_that_is_read_once(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    once = tiny.merged(settings(data, tokenizer, "auto"), {"optimization": {"max_train_steps": 2}})
    assert train_here(once, tmp_path / "output") == 0
    assert not shard_files(tmp_path / "output")


@pytest.mark.process
def test_random_crops_keep_text_and_features_only(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    random = settings(data, tokenizer, "auto", random_crop=True)
    assert train_here(random, tmp_path / "output") == 0
    assert sorted(shard_files(tmp_path / "output")) == ["image-pooled", "image-sequence", "text"]
    without = settings(data, tokenizer, "off", random_crop=True)
    assert train_here(without, tmp_path / "without") == 0
    assert losses(tmp_path / "output") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)


@pytest.mark.process
def test_a_trained_encoder_is_not_kept(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    trained = {"image_encoder_config": {"train": True}}
    given = tiny.merged(settings(data, tokenizer), {"model": {"params": trained}})
    assert train_here(given, tmp_path / "output") == 0
    assert sorted(shard_files(tmp_path / "output")) == ["latents", "text"]


@pytest.mark.process
def test_encoders_leave_memory_and_come_back_to_draw(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    whole = AdapterModel.of(tiny.configuration(settings(data, tokenizer)))
    stage, image_encoder = whole.first_stage, whole.image_encoder
    assert stage.vae is not None
    assert image_encoder is not None
    stage.vae.save_pretrained(tmp_path / "vae")  # type: ignore[union-attr,operator]
    image_encoder.encoder.save_pretrained(tmp_path / "encoder")  # type: ignore[operator]
    loaded = {
        "first_stage_config": {"pretrained": str(tmp_path / "vae")},
        "image_encoder_config": {"pretrained": str(tmp_path / "encoder")},
    }
    given = tiny.merged(settings(data, tokenizer), {"model": {"params": loaded}})
    given["sampling"] = {
        "rows": [{"caption": "a picture", "image": str(data / "1.png")}],
        "steps": 2,
        "images_per_row": 1,
    }
    run = setup.prepare(tiny.configuration(given), setup.RunOptions(tmp_path / "output", show=lambda _: None))
    model = run.state.model
    assert devices(model.first_stage) == devices(model.image_encoder) == {"meta"}
    assert devices(model.text_encoders) == {"cpu"}  # no folder could give it back
    loop.take_step(run)
    with run.resting.awake():
        pixels = torch.zeros(1, 3, 16, 16)
        kept = list(model.image_encoder.parameters())  # type: ignore[union-attr]  # as DistributedDataParallel does
        assert torch.equal(model.image_encoder(pixels, sequence=True), image_encoder(pixels, sequence=True))  # type: ignore[misc]
        assert model.first_stage.decode(torch.zeros(1, 2, 4, 4)).isfinite().all()
    assert devices(model.first_stage) == {"meta"}
    assert sum(parameter.numel() for parameter in kept) == 0
    assert train_here(given, tmp_path / "drawn") == 0
    with Image.open(tmp_path / "drawn" / "samples" / "step-8.png") as drawn:
        assert len(set(drawn.get_flattened_data())) > 5
    assert "model/image_encoder.safetensors" not in tensors_of(tmp_path / "drawn" / "checkpoint-8")


def devices(module: torch.nn.Module | None) -> set[str]:
    assert module is not None
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


def test_a_process_does_its_own_share_first_and_then_what_is_left_of_the_others(tmp_path: Path) -> None:
    done: list[str] = []

    def encoded(sources: list[str]) -> shards.Item:
        done.extend(sources)
        return {"value": torch.ones(len(sources), 2)}

    def encoding() -> Encoding:
        sources = {f"key-{number}": f"source-{number}" for number in range(8)}
        return Encoding("numbers", shards.Shards(tmp_path / "numbers"), sources, lambda source: source, encoded)

    def build(rank: int) -> encode.Build:
        return encode.Build(Processes(rank, 2), StopRequest(Processes()), 2, lambda _: None, lambda _: None)

    second = encoding()
    own, _ = build(1)._shares(second)
    second.shards.write({key: {"value": torch.ones(2)} for chunk in own for key, _ in chunk})
    build(0).run([encoding()])
    assert done == [f"source-{number}" for number in range(4)]
    done.clear()
    (tmp_path / "numbers").joinpath(second.shards.where["key-4"]).unlink()
    build(0).run([encoding()])
    assert done == [f"source-{number}" for number in (6, 7, 4, 5)]


def test_a_process_leaves_out_what_another_one_has_done_of_its_share(tmp_path: Path) -> None:
    done: list[str] = []
    folder = tmp_path / "numbers"

    def encoded(sources: list[str]) -> shards.Item:
        done.extend(sources)
        if len(done) == 2:  # a faster process helps from the end
            shards.Shards(folder).write({f"key-{number}": {"value": torch.ones(2)} for number in (4, 5, 6, 7)})
        return {"value": torch.ones(len(sources), 2)}

    sources = {f"key-{number}": f"source-{number}" for number in range(8)}
    ticks = itertools.count(step=encode.REFRESH_SECONDS)
    build = encode.Build(
        Processes(), StopRequest(Processes()), 2, lambda _: None, lambda _: None, lambda: float(next(ticks))
    )
    build.run([Encoding("numbers", shards.Shards(folder), sources, lambda source: source, encoded)])
    assert done == [f"source-{number}" for number in (0, 1, 2, 3)]


def numbers(folder: Path, values: list[torch.Tensor]) -> Encoding:
    sources = {f"key-{index}": index for index in range(len(values))}
    return Encoding(
        "numbers", shards.Shards(folder), sources, lambda index: index,
        lambda indices: {"value": torch.stack([values[index] for index in indices])},
    )  # fmt: skip


def one_by_one() -> encode.Build:
    return encode.Build(Processes(), StopRequest(Processes()), 1, lambda _: None, lambda _: None)


def test_a_disk_that_fills_during_the_build_is_told_and_what_was_written_stays(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "SHARD_BYTES", 1)
    encoding = numbers(small_disk, [torch.ones(20_000)] * 8)
    with pytest.raises(DiskFull, match=r"no space left on the device for the cache; free some, name another folder"):
        one_by_one().run([encoding])
    written = small_disk.glob("*.safetensors")
    assert len(encoding.shards.verify([path.name for path in written])) == 0
    assert 0 < encode.missing_of(encoding) < 8
    assert not list(small_disk.glob(".*.tmp"))


def test_what_overflows_is_not_kept_and_names_its_source(tmp_path: Path) -> None:
    encoding = numbers(tmp_path, [torch.ones(3), torch.full((3,), 1e6).half()])
    with pytest.raises(InvalidConfig, match=r"encoding numbers: 1 becomes NaN or infinite in torch\.float16; set data"):
        one_by_one().run([encoding])
    assert encoding.shards.where.keys() == {"key-0"}
