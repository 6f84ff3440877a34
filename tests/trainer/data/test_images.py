"""What is cut of a picture is what cutting the whole scaled picture gives, at the cost of what is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from adapter_api.data import DataParams
from adapter_trainer.data import images
from adapter_trainer.data.images import Size, cut, part, place, reference_image
from adapter_trainer.data.opening import MAX_RATIO


def noise(height: int, width: int, *, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cut_whole(
    source: NDArray[np.uint8], whole: Size, corner: Size, size: Size, resample: Image.Resampling
) -> NDArray[np.uint8]:
    """Scales all of it, then crops."""
    scaled = np.asarray(Image.fromarray(source).resize(whole[::-1], resample))
    return scaled[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]),
    st.sampled_from([1, 4]), st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_part_is_the_one_of_the_whole_bit_for_bit(
    height: int, width: int, rows: int, columns: int, channels: int, most: int, random: object
) -> None:
    draw = random.randint  # type: ignore[attr-defined]  # random.Random
    whole = (rows + draw(0, 200), columns + draw(0, 200))
    corner = (draw(0, whole[0] - rows), draw(0, whole[1] - columns))
    source = noise(height, width, channels=channels)
    before, images.MOST_SCALED = images.MOST_SCALED, most
    try:
        for resample in (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC):
            found = part(Image.fromarray(source), whole, resample, corner, (rows, columns))
            assert np.array_equal(found, cut_whole(source, whole, corner, (rows, columns), resample))
    finally:
        images.MOST_SCALED = before


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 100))
def test_samples_have_the_pixels_that_scaling_the_whole_gives(height: int, width: int, seed: int) -> None:
    params = DataParams(resolution=16, random_crop=True, random_flip=True)
    placement = place((height, width), (16, 16), params, np.random.default_rng(seed))
    source = noise(height, width, seed=seed)
    corner = (placement.top, placement.left)
    expected = cut_whole(source, placement.scaled, corner, (16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(cut(source, placement), expected[:, ::-1] if placement.flip else expected)


@pytest.mark.parametrize("size", [(64 * MAX_RATIO, 64), (64, 64 * MAX_RATIO)])
def test_the_longest_picture_costs_a_few_times_what_is_kept_of_it(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.zeros((*size, 3), np.uint8)
    placement = place(size, (512, 512), DataParams(resolution=512), None)
    assert placement.scaled in {(512 * MAX_RATIO, 512), (512, 512 * MAX_RATIO)}
    resize, made = Image.Image.resize, []

    def counted(image: Image.Image, to: Size, resample: Image.Resampling) -> Image.Image:
        made.append(to[0] * to[1])
        return resize(image, to, resample)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert cut(source, placement).shape == (512, 512, 3)
    assert 512 * 512 <= max(made) <= images.MOST_SCALED * 512 * 512


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((150, 200), (224, 298)), ((200, 150), (298, 224)), ((1000, 999), (224, 224)), ((1, 16), (224, 3584))],
)
def test_sizes_round_as_clips_own_do(size: Size, scaled: Size) -> None:
    from transformers.image_transforms import get_resize_output_image_size

    theirs = get_resize_output_image_size(
        np.zeros((*size, 3)), 224, default_to_square=False, input_data_format="channels_last"
    )
    assert tuple(theirs) == scaled


@given(st.integers(1, 90), st.integers(1, 90))
def test_reference_images_are_preprocessed_as_clips_own_are(height: int, width: int) -> None:
    from transformers import CLIPImageProcessorPil

    image = Image.fromarray(noise(height, width))
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)(image, return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(reference_image(image, 32), theirs, atol=2e-6)
