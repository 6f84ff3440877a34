"""Colours as sRGB: by the code points or the profile in a file or, in a PNG without either, by its gamma and primaries."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from adapter_trainer.data.coded_colour import CodedColour

CODED = "coded_colour"
"""Where `Image.info` holds a CodedColour."""

UNSEEN = 2
"""Levels of 255. A profile that changes no colour by more is sRGB under another name, and leaves pixels as they are."""

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
"""The colour space that a profile has to be of, by mode."""
_STEPS = 9
"""Levels of each channel in the colours that a profile is tried on."""

_SRGB_GAMMA, _GAMMA_TOLERANCE = 0.45455, 0.005
_SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue, in the order of a PNG."""
_PRIMARIES_TOLERANCE = 0.005
_ROWS_AT_ONCE = 2**20
"""Pixels: each takes 24 bytes while it is computed."""


def in_srgb(image: Image.Image) -> Image.Image:
    """An L, RGB or CMYK picture as L or RGB of sRGB; `image.info` says what its numbers mean."""
    profile, coded = image.info.get("icc_profile"), image.info.get(CODED)
    if isinstance(coded, CodedColour) and (image.format == "PNG" or not profile):
        return _from_codes(image, coded)
    transform = _transform(profile, image.mode) if isinstance(profile, bytes) else None
    if transform is not None:
        converted = transform.apply(image)
        # What a grey profile gives has three equal channels.
        return converted.getchannel(0) if image.mode == "L" else converted
    if image.mode == "CMYK":
        return image.convert("RGB")
    if image.format == "PNG" and not profile and "srgb" not in image.info:
        return _from_gamma(image, image.info.get("gamma"), image.info.get("chromaticity"))
    return image


# --- profiles ---


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where a profile is damaged or of another colour space, which viewers pass over, or sRGB all but in name."""
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if read.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(
            read,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            ImageCms.Flags.NOCACHE,  # threads share it
        )
        tried = _colours(mode)
        change = np.asarray(transform.apply(tried)).astype(int) - np.asarray(tried.convert("RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if mode != "CMYK" and np.abs(change).max() <= UNSEEN else transform


def _colours(mode: str) -> Image.Image:
    if mode != "RGB":
        return Image.frombytes(mode, (256, 1), bytes(range(256)) * Image.getmodebands(mode))
    levels = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))


# --- code points, gamma and primaries ---


def _from_codes(image: Image.Image, coded: CodedColour) -> Image.Image:
    """Code points of SDR; in CMYK they would mean nothing, and no format that has them has CMYK."""
    matrix = _to_srgb_primaries(coded.chromaticity) if image.mode == "RGB" and coded.chromaticity is not None else None
    if matrix is None and coded.exponent is None:
        return image
    levels = np.arange(256) / 255
    return _from_light(image, _decoded(levels) if coded.exponent is None else levels**coded.exponent, matrix)


def _from_gamma(image: Image.Image, gamma: Any, primaries: Any) -> Image.Image:
    if not isinstance(gamma, float) or gamma <= 0:
        return image
    is_srgb = abs(gamma - _SRGB_GAMMA) <= _GAMMA_TOLERANCE
    matrix = _to_srgb_primaries(primaries) if image.mode == "RGB" and isinstance(primaries, tuple) else None
    if is_srgb and matrix is None:
        return image
    return _from_light(image, (np.arange(256) / 255) ** (1 / gamma), matrix)


def _from_light(image: Image.Image, light: NDArray[np.float64], matrix: NDArray[np.float64] | None) -> Image.Image:
    """By the light of each of the 256 numbers, and what takes it to sRGB's primaries."""
    if matrix is None:
        table = _encoded(light)
        return Image.fromarray(table[np.asarray(image)])
    pixels = np.asarray(image)
    converted = np.empty_like(pixels)
    rows = max(1, _ROWS_AT_ONCE // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        converted[top : top + rows] = _encoded(light[pixels[top : top + rows]] @ matrix.T)
    return Image.fromarray(converted)


def _decoded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear light of sRGB's numbers from 0 to 1 (IEC 61966-2-1)."""
    light: NDArray[np.float64] = np.where(numbers <= 0.04045, numbers / 12.92, ((numbers + 0.055) / 1.055) ** 2.4)
    return light


def _encoded(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Linear light as sRGB's 8 bits (IEC 61966-2-1)."""
    light = light.clip(0, 1)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    encoded: NDArray[np.uint8] = np.rint(curved * 255).astype(np.uint8)
    return encoded


def _to_srgb_primaries(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """What takes linear light of these primaries to that of sRGB's; None where they are the same, or make no colours."""
    if len(primaries) != len(_SRGB_PRIMARIES) or np.allclose(primaries, _SRGB_PRIMARIES, atol=_PRIMARIES_TOLERANCE):
        return None
    try:
        theirs, ours = _to_xyz(primaries), _to_xyz(_SRGB_PRIMARIES)
        cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # Bradford
        whites = (cone @ ours.sum(axis=1)) / (cone @ theirs.sum(axis=1))
        matrix: NDArray[np.float64] = np.linalg.inv(ours) @ np.linalg.inv(cone) @ np.diag(whites) @ cone @ theirs
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    white, *colours = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    columns = np.stack(colours, axis=1)
    scaled: NDArray[np.float64] = columns * np.linalg.solve(columns, white)
    return scaled
