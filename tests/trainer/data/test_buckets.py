"""Pictures go into the bucket that is the most like them, batches are of one size, and what the UNet is told is true."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapter_api.buckets import bucket_sizes, nearest_bucket
from adapter_api.compatibility import differences
from adapter_api.data import AspectBuckets, DataParams
from adapter_api.document import InvalidDocument
from adapter_trainer.data.order import Bucketed, Place
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny
from tests.trainer.support.runs import finish, losses, train_here

SHAPES = [(8, 8), (8, 14), (14, 8), (9, 8), (20, 12), (12, 20), (8, 30)]
"""Height and width of the pictures, over and over."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_data(tmp_path_factory.mktemp("pictures"), samples=23)
    random = np.random.default_rng(1)
    for index in range(23):
        shape = SHAPES[index % len(SHAPES)]
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def settings(data: Path, **more: Any) -> tiny.Settings:
    params = {"resolution": 8, "aspect_buckets": {"step": 2, "max_ratio": 2.0}, "random_flip": True, **more}
    return tiny.settings(data, {"data": {"params": params}, "optimization": {"max_train_steps": 9}})


def test_sdxls_buckets() -> None:
    params = DataParams(resolution=1024, aspect_buckets=AspectBuckets())
    tall = [(1408, 704), (1344, 768), (1280, 768), (1216, 832), (1152, 896), (1088, 960)]
    wide = [(width, height) for height, width in tall]
    assert bucket_sizes(params) == tuple(sorted([*tall, *wide, (1024, 1024)]))


@given(
    resolution=st.integers(1, 40).map(lambda count: 8 * count),
    ratio=st.floats(1, 4),
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
)
def test_buckets_keep_area_and_step_and_mirror_each_other(
    resolution: int, ratio: float, height: int, width: int
) -> None:
    sizes = bucket_sizes(DataParams(resolution=resolution, aspect_buckets=AspectBuckets(step=8, max_ratio=ratio)))
    assert (resolution, resolution) in sizes
    for size in sizes:
        assert size[0] * size[1] <= resolution**2
        assert size[0] % 8 == size[1] % 8 == 0
        assert max(size) <= ratio * min(size)
    chosen, turned = (sizes[nearest_bucket(size, sizes)] for size in ((height, width), (width, height)))
    assert chosen[0] / chosen[1] == pytest.approx(turned[1] / turned[0])


def test_every_batch_is_of_one_size_and_time_ids_say_which(pictures: Path, tmp_path: Path) -> None:
    config = tiny.configuration(settings(pictures))
    run = setup.prepare(config, setup.RunOptions(tmp_path, show=lambda _: None))
    sizes = set()
    for batch in islice(run.batches, run.samples // 4):
        assert batch.images is not None
        size = tuple(batch.images.shape[2:])
        sizes.add(size)
        assert batch.time_ids[:, 4:].tolist() == [list(size)] * 4
        assert batch.noise.shape == batch.images.shape
        for original_height, original_width, top, left, _, _ in batch.time_ids.tolist():
            scale = max(size[0] / original_height, size[1] / original_width)
            assert top <= original_height * scale - size[0] + 1
            assert left <= original_width * scale - size[1] + 1
    assert sizes == {(8, 8), (6, 10), (10, 6)}
    assert torch.isfinite(loop.take_step(run))


@pytest.mark.process
def test_buckets_resume_and_share_rounds_as_squares_do(pictures: Path, tmp_path: Path) -> None:
    given = tiny.merged(settings(pictures), {"checkpoint": {"save_steps": 4}})
    assert train_here(given, tmp_path / "whole") == 0
    given["optimization"]["max_train_steps"] = 4
    assert train_here(given, tmp_path / "parts") == 0
    given["optimization"]["max_train_steps"] = 9
    assert train_here(given, tmp_path / "parts", "--resume_from_checkpoint", "latest") == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    halved = tiny.merged(given, {"optimization": {"gradient_accumulation_steps": 2, "max_train_steps": 4}})
    assert train_here(halved, tmp_path / "one") == 0
    halved["optimization"]["gradient_accumulation_steps"] = 1
    finish(halved, [tmp_path / "two"] * 2, folder=tmp_path)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_the_batch_size_belongs_to_the_order_of_buckets(pictures: Path) -> None:
    saved = tiny.configuration(settings(pictures))
    given = tiny.configuration(tiny.merged(settings(pictures), {"optimization": {"train_batch_size": 2}}))
    assert differences(saved, given) == ["optimization.train_batch_size: the checkpoint has 4, this run has 2"]


def test_a_step_that_the_unet_cannot_divide_is_refused(pictures: Path) -> None:
    with pytest.raises(InvalidDocument, match=r"aspect_buckets.step: is 3, but sizes must be multiples of 2"):
        tiny.configuration(settings(pictures, aspect_buckets={"step": 3}))


def kohyas(resolution: int = 1024, step: int = 64, lowest: int = 256, highest: int = 2048) -> list[tuple[int, int]]:
    """Sizes by the rule of sd-scripts (`library/model_util.py`, make_bucket_resolutions)."""
    area = resolution * resolution
    pairs = [(side, min(highest, area // side // step * step)) for side in range(lowest, highest + 1, step)]
    return sorted({size for pair in pairs if pair[1] >= lowest for size in (pair, pair[::-1])})


def cropped(original: tuple[int, int], size: tuple[int, int]) -> float:
    """Share of a picture that a size cuts off."""
    ratio = original[0] / original[1] / (size[0] / size[1])
    return 1 - min(ratio, 1 / ratio)


def test_no_picture_is_cut_more_than_with_kohyas_sizes() -> None:
    ours = bucket_sizes(DataParams(resolution=1024, aspect_buckets=AspectBuckets()))
    theirs = kohyas()
    assert set(ours) == {size for size in theirs if max(size) <= 2 * min(size)}
    random = np.random.default_rng(0)
    ratios = np.exp(random.uniform(-np.log(2), np.log(2), 4000))
    originals = [(max(1, round(1000 * ratio)), 1000) for ratio in ratios]
    worst = max(cropped(original, ours[nearest_bucket(original, ours)]) for original in originals)
    worst_of_theirs = max(min(cropped(original, size) for size in theirs) for original in originals)
    assert worst <= worst_of_theirs + 1e-9
    assert worst < 0.067


def test_readings_of_a_picture_count_once_an_epoch_however_alone_it_is() -> None:
    """Five sizes that one picture has each, among a thousand pictures in batches of sixteen."""
    buckets = np.array([0] * 995 + [1, 2, 3, 4, 5], np.int64)
    order = Bucketed(3, buckets, 16)
    for epoch in range(2):
        counted = np.zeros(1000)
        for position in range(order.length):
            place = Place(epoch, position)
            counted[order.index_at(place)] += order.share_at(place)
        np.testing.assert_allclose(counted, 1)
    assert (order.length, order.repeated) == (1088, 88)


def test_a_start_says_how_many_readings_are_repeats(pictures: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = setup.prepare(tiny.configuration(settings(pictures)), setup.RunOptions(tmp_path, show=said.append))
    repeated = run.samples - 23
    assert repeated > 0
    assert f"an epoch has {run.samples} readings of 23 pictures" in "\n".join(said)
    assert f"{repeated} are repeats" in "\n".join(said)


def test_repeats_move_the_weights_as_one_reading_does_and_are_reported_as_the_loss_they_are(
    pictures: Path, tmp_path: Path
) -> None:
    run = setup.prepare(tiny.configuration(settings(pictures)), setup.RunOptions(tmp_path, show=lambda _: None))
    reported, weighed = [], []
    for _ in range(run.samples // 4):
        batch = next(run.batches)
        with torch.no_grad():
            each = loop.losses_of(run.module, run.state.model, run.schedule, batch, run.nulls)
        shares = torch.ones(4) if batch.shares is None else batch.shares
        reported.append(float((each * shares).sum() / shares.sum()))
        weighed.append(shares.sum())
    assert float(sum(weighed)) == pytest.approx(23)
    again = setup.prepare(tiny.configuration(settings(pictures)), setup.RunOptions(tmp_path, show=lambda _: None))
    assert float(loop.take_step(again)) == pytest.approx(reported[0], rel=1e-5)
