"""A place in the order gives the same tensors anywhere, and what the UNet is told of a crop is true."""

import dataclasses
import multiprocessing
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from adapter_api.columns import columns_of
from adapter_api.data import DataParams
from adapter_trainer.data import samples as module
from adapter_trainer.data.images import place_image, reference_image, scaled
from adapter_trainer.data.order import Place, generator_at
from adapter_trainer.data.pairs_table import read_table
from adapter_trainer.data.samples import Batch, Collate, Samples, SampleShape, dropped_of
from adapter_trainer.errors import InvalidData
from tests.trainer.support import tiny

SHAPE = SampleShape(latents=(1, 8, 8), timesteps=1000, reference_size=16, dropouts={"label_to_token": 0.3})


def samples(root: Path, **params: Any) -> Samples:
    settings = tiny.settings(root, {"data": {"params": {"random_crop": True, "random_flip": True, **params}}})
    config = tiny.configuration(settings)
    widths = {column.name: column.width for column in columns_of(config)}
    rows = read_table(config.data.params, columns_of(config))
    return Samples(rows, config.data.params, widths, SHAPE, config.seed)


def read(root: Path, rank: int = 0, world_size: int = 1, seen: int = 0, **params: Any) -> list[Batch]:
    cpu = torch.device("cpu")
    return list(islice(module.batches(samples(root, **params), Collate(None), seen, 4, rank, world_size, cpu), 5))


def numbers(batch: Batch) -> dict[str, Any]:
    single = {name: getattr(batch, name) for name in ("images", "noise", "posterior_noise", "timesteps", "time_ids")}
    tensors = {**single, **batch.columns, **{f"dropped-{name}": value for name, value in batch.dropped.items()}}
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def in_another_process(root: Path) -> list[dict[str, Any]]:
    return [numbers(batch) for batch in read(root)]


@pytest.mark.process
def test_a_batch_is_a_function_of_its_places(data: Path) -> None:
    expected = [numbers(batch) for batch in read(data)]
    assert [numbers(batch) for batch in read(data, num_workers=2)] == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(in_another_process, (data,)) == expected
    assert numbers(read(data, seen=8)[0]) == expected[2]


def test_processes_share_the_rounds(data: Path) -> None:
    whole = read(data)
    shared = [read(data, rank, world_size=2) for rank in range(2)]
    for number, batch in enumerate(whole[:4]):
        assert torch.equal(batch.noise, shared[number % 2][number // 2].noise)


def test_every_epoch_draws_anew(data: Path) -> None:
    source = samples(data)
    first, second = ([source[Place(epoch, position)] for position in range(tiny.SAMPLES)] for epoch in (0, 1))
    assert sorted(sample.caption for sample in first) == sorted(sample.caption for sample in second)
    assert len({sample.noise.tobytes() for sample in (*first, *second)}) == 2 * tiny.SAMPLES
    assert not np.array_equal(*first[0].noise)


def test_tensors_of_a_batch_are_contiguous_so_that_devices_copy_them_without_waiting(data: Path) -> None:
    batch = read(data)[0]
    assert batch.noise.is_contiguous()
    assert batch.posterior_noise.is_contiguous()
    assert not torch.equal(batch.noise, batch.posterior_noise)


def test_one_draw_drops_each_condition_alone_or_all_at_once() -> None:
    shares = {"text": 0.05, "adapters.look": 0.1}
    shape = SampleShape(latents=(1, 8, 8), timesteps=1000, reference_size=None, dropouts=shares, joint_dropout=0.05)
    found = Counter(
        tuple(name for name, is_dropped in dropped_of(shape, np.array([draw, 0.0])).items() if is_dropped)
        for draw in (np.arange(1000) + 0.5) / 1000
    )
    assert found == {("text",): 50, ("adapters.look",): 100, ("text", "adapters.look"): 50, (): 800}


def test_conditions_are_dropped_as_often_as_configured(data: Path) -> None:
    source = samples(data)
    drawn = [source[Place(epoch, 0)].dropped["label_to_token"] for epoch in range(400)]
    assert 0.22 < sum(drawn) / len(drawn) < 0.38


def test_columns_are_one_hot_labels_vectors_and_reference_images(data: Path) -> None:
    source = samples(data)
    sample = source[Place(0, 0)]
    index = int(sample.caption.rsplit(" ", 1)[1])
    assert sample.columns["digit"].tolist() == [float(label == index % tiny.LABELS) for label in range(tiny.LABELS)]
    assert sample.columns["shape"].shape == (5,)
    assert sample.columns["image"].shape == (3, 16, 16)


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose every pixel says where it is: red for its row, green for its column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)


@given(other=st.integers(8, 40), place=st.integers(0, 10**6), is_wide=st.booleans())
def test_crop_coordinates_are_true(other: int, place: int, *, is_wide: bool) -> None:
    params = DataParams(resolution=8, random_crop=True, random_flip=True)
    height, width = (8, other) if is_wide else (other, 8)
    image, time_ids = place_image(gradient(height, width), params, generator_at(0, Place(0, place), "sample"))
    red, green, _ = np.moveaxis(image.astype(int), -1, 0)
    *original, top, left, target_height, target_width = time_ids
    assert original == [height, width]
    assert (target_height, target_width) == (8, 8)
    assert red[0, 0] == top
    if green[0, 0] < green[0, -1]:
        assert green[0, 0] == left
    else:  # mirrored: counted from the right-hand edge
        assert green[0, 0] == width - 1 - left


def test_a_flip_mirrors_and_nothing_else(data: Path) -> None:
    params = DataParams(resolution=8, random_flip=True)
    drawn = [place_image(gradient(8, 8), params, generator_at(0, Place(0, place), "")) for place in range(20)]
    straight, _ = place_image(gradient(8, 8), params, None)
    kinds = [np.array_equal(image, straight) for image, _ in drawn]
    assert set(kinds) == {True, False}
    assert all(
        np.array_equal(image, straight if kept else straight[:, ::-1])
        for (image, _), kept in zip(drawn, kinds, strict=True)
    )
    assert {time_ids for _, time_ids in drawn} == {(8, 8, 0, 0, 8, 8)}


@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_becomes_the_resolution(height: int, width: int) -> None:
    image, time_ids = place_image(gradient(height, width), DataParams(resolution=16), None)
    assert image.shape == (16, 16, 3)
    assert time_ids[:2] == (height, width)
    assert reference_image(Image.fromarray(gradient(height, width)), 14).shape == (3, 14, 14)


def test_images_are_scaled_channels_first_to_minus_one_and_one() -> None:
    scaled_to = scaled(gradient(2, 3) * np.uint8(85))
    assert scaled_to.shape == (3, 2, 3)
    np.testing.assert_allclose(scaled_to[1, 0], [-1, -1 / 3, 1 / 3], atol=1e-6)
    assert np.array_equal(scaled(np.array([[[0], [255]]], np.uint8)), [[[-1, 1]]])


def test_reference_images_have_clips_statistics() -> None:
    from transformers import CLIPImageProcessorPil

    image = Image.fromarray(gradient(20, 31))
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)(image, return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(reference_image(image, 16), theirs, atol=0.03)


def test_palettes_transparency_and_grey_become_the_image_mode(tmp_path: Path) -> None:
    tiny.write_data(tmp_path, samples=4)
    for index, mode in enumerate(["P", "RGBA", "1", "LA"]):
        Image.new(mode, (8, 8)).save(tmp_path / f"{index}.png")
    source = samples(tmp_path)
    pictures = [source[Place(0, position)].pixels for position in range(4)]
    assert {pixels.shape for pixels in pictures if pixels is not None} == {(8, 8)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_pinned_batches_hold_the_same_numbers(data: Path) -> None:
    batch = read(data)[0]
    assert numbers(batch.pin_memory()) == numbers(batch)


def test_batch_read_ahead_is_the_one_that_would_have_been_read(data: Path) -> None:
    batches = module.batches(samples(data), Collate(None), 0, 4, 0, 1, torch.device("cpu"))
    ahead = []
    for _ in range(5):
        ahead.append(next(batches))
        batches.read_ahead()
        batches.read_ahead()  # asked twice, read once
    assert [numbers(batch) for batch in ahead] == [numbers(batch) for batch in read(data)]


def test_a_sample_that_cannot_be_read_names_its_line_and_file(tmp_path: Path) -> None:
    tiny.write_data(tmp_path, samples=4)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    source = samples(tmp_path, verify="none")
    with pytest.raises(InvalidData, match=r"^line 3: 2\.png cannot be decoded: .*; replace or remove it$"):
        [source[Place(0, position)] for position in range(4)]


@pytest.mark.process
def test_a_sample_that_a_data_worker_cannot_read_is_told_in_one_line(tmp_path: Path) -> None:
    tiny.write_data(tmp_path, samples=4)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(InvalidData, match=r"^line 3: 2\.png cannot be decoded: [^\n]*$"):
        read(tmp_path, num_workers=1, verify="none")


def test_what_a_phone_stores_lying_down_is_read_upright_also_unverified(tmp_path: Path) -> None:
    tiny.write_data(tmp_path, samples=1)
    lying = np.zeros((8, 12), np.uint8)
    lying[:, :2] = 255  # orientation 6: the left edge of what is stored is the top of what is shown
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(tmp_path / "0.png", exif=exif)
    sample = samples(tmp_path, verify="none", random_crop=False, random_flip=False)[Place(0, 0)]
    assert sample.time_ids[:2] == (12, 8)
    assert sample.pixels is not None
    assert (sample.pixels[-1] == 0).all()


def test_one_of_several_captions_is_drawn_for_each_reading_and_changes_nothing_else(tmp_path: Path) -> None:
    tiny.write_data(tmp_path, samples=1)
    plain = samples(tmp_path)
    several = samples(tmp_path)
    several.rows = [dataclasses.replace(several.rows[0], caption="one", other_captions=("two", "three"))]
    drawn = [several[Place(epoch, 0)] for epoch in range(60)]
    assert {sample.caption for sample in drawn} == {"one", "two", "three"}
    assert [several[Place(epoch, 0)].caption for epoch in range(60)] == [sample.caption for sample in drawn]
    assert np.array_equal(drawn[7].noise, plain[Place(7, 0)].noise)
    assert drawn[7].timestep == plain[Place(7, 0)].timestep
