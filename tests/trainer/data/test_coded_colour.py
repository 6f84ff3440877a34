"""Colours that a file gives as code points become sRGB, or are refused; so are bits that Pillow decodes to other numbers."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adapter_trainer.data.coded_colour import coded_colour
from adapter_trainer.data.jpeg2000 import channel_bits
from adapter_trainer.data.opening import open_picture, read_header
from adapter_trainer.errors import InvalidData
from tests.trainer.support.picture_files import blocks, picture, png, png_rows

SRGB, LINEAR, PQ, HLG = 13, 8, 16, 18
BT709, BT2020, P3 = 1, 9, 12
RANGE = np.array([[0, 64, 255]], np.uint8)

WHITE_JPEG2000 = base64.b64decode(
    "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAACAAAAAgAAw8HAAAAAAAPY29scgEAAAAAABAAAADYanAyY/9P/1EA"
    "LwAAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAAAw8BAQ8BAQ8BAf9SAAwAAAABAQAEBAAB/1wABECA/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBF"
    "RyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAYAAB/5Pf+JJgEo4tP4OLMgqWVrheGfwasnpoWyE3gahZyQ3gnOckN4JznJDeCc5yQ3gnOckN4JznJDeCc5yQ3gnO"
    "ckN4JznJDeCc5yQ3gnOckN4Jz4CA/9k="
)
"""8 x 8 pixels of 3 x 16 bits, white below a black row, as imagecodecs 2026.3.6 writes them."""


def refusal(path: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        open_picture(path)
    with pytest.raises(InvalidData):
        read_header(path.name, path)
    with pytest.raises(InvalidData):
        read_header(path.name, io.BytesIO(path.read_bytes()))
    return str(caught.value)


def coded(path: Path, primaries: int, transfer: int, kind: int = 2, rows: NDArray[np.uint8] | None = None) -> Path:
    """A PNG or an AVIF of the blocks whose colours are said to be these."""
    if path.suffix == ".png":
        chunks = (b"cICP", bytes([primaries, transfer, 0, 1])), (b"gAMA", (45455).to_bytes(4, "big"))
        png(path, 8, kind, png_rows(blocks() if rows is None else rows), *chunks)
        return path
    picture("RGB").save(path, quality=100, subsampling="4:4:4")
    content = path.read_bytes()
    at = content.index(b"nclx") + 4
    path.write_bytes(content[:at] + bytes([0, primaries, 0, transfer]) + content[at + 4 :])
    return path


@pytest.mark.parametrize("name", ["a.png", "a.avif"])
def test_code_points_are_read(tmp_path: Path, name: str) -> None:
    path = coded(tmp_path / name, BT2020, LINEAR)
    found = coded_colour({".png": "PNG", ".avif": "AVIF"}[path.suffix], path)
    assert found is not None
    assert (found.primaries, found.transfer) == (BT2020, LINEAR)


@pytest.mark.parametrize("name", ["a.png", "a.avif"])
@pytest.mark.parametrize(("transfer", "told"), [(PQ, "PQ"), (HLG, "HLG")])
def test_pictures_for_hdr_screens_are_refused_by_name(tmp_path: Path, name: str, transfer: int, told: str) -> None:
    message = refusal(coded(tmp_path / name, BT2020, transfer))
    assert message.startswith(f"{name} is made for HDR screens ({told})")


@pytest.mark.parametrize("name", ["a.png", "a.avif"])
def test_wider_primaries_become_srgb(tmp_path: Path, name: str) -> None:
    seen = np.asarray(open_picture(coded(tmp_path / name, P3, SRGB))).astype(int)
    plain = np.asarray(open_picture(coded(tmp_path / f"plain-{name}", BT709, SRGB))).astype(int)
    assert np.abs(plain - blocks()).max() <= 6
    # Greys stay; P3's red, green and blue are more than sRGB has.
    assert np.abs(seen[9:, 1:] - plain[9:, 1:]).max() <= 6
    soft = np.full((4, 4, 3), (200, 100, 100), np.uint8)
    png(tmp_path / "soft.png", 8, 2, png_rows(soft), (b"cICP", bytes([P3, SRGB, 0, 1])))
    # What libvips 8.18 makes of these by its Display P3 profile.
    assert np.asarray(open_picture(tmp_path / "soft.png"))[0, 0].tolist() == [215, 93, 97]


def test_the_curve_of_code_points_comes_before_a_gamma(tmp_path: Path) -> None:
    path = coded(tmp_path / "a.png", BT709, LINEAR, 0, RANGE)
    assert np.asarray(open_picture(path)).tolist() == [[0, 137, 255]]
    path = coded(tmp_path / "b.png", BT709, SRGB, 0, RANGE)
    assert np.asarray(open_picture(path)).tolist() == RANGE.tolist()


@pytest.mark.parametrize(("primaries", "transfer"), [(2, 2), (1, 1), (1, 6), (1, 14), (99, 13)])
def test_what_screens_show_as_srgb_keeps_every_pixel(tmp_path: Path, primaries: int, transfer: int) -> None:
    assert np.array_equal(np.asarray(open_picture(coded(tmp_path / "a.png", primaries, transfer))), blocks())


def test_numbers_of_videos_range_are_refused(tmp_path: Path) -> None:
    png(tmp_path / "a.png", 8, 2, png_rows(blocks()), (b"cICP", bytes([BT709, SRGB, 0, 0])))
    assert "video's range" in refusal(tmp_path / "a.png")


def test_boxes_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    content = coded(tmp_path / "a.avif", BT2020, PQ).read_bytes()
    for at in range(len(content[: content.index(b"mdat")])):
        for value in (0, 1, 255):
            broken = content[:at] + bytes([value]) + content[at + 1 :]
            coded_colour("AVIF", io.BytesIO(broken))  # never raises
            coded_colour("PNG", io.BytesIO(broken[:at]))


def test_a_jpeg_2000_of_more_than_8_bits_in_colour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jp2").write_bytes(WHITE_JPEG2000)
    (tmp_path / "a.j2k").write_bytes(WHITE_JPEG2000[WHITE_JPEG2000.index(b"\xff\x4f\xff\x51") :])
    for name in ("a.jp2", "a.j2k"):
        assert channel_bits(tmp_path / name) == [16, 16, 16]
        assert refusal(tmp_path / name).startswith(f"{name} has colours of more than 8 bits in a JPEG 2000")


def test_a_tiff_of_16_bits_in_planes_is_refused_and_of_8_is_read(tmp_path: Path) -> None:
    for bits, samples in ((16, "<u2"), (8, "u1")):
        values = (blocks().astype(np.uint16) * (257 if bits == 16 else 1)).astype(samples)
        path = tmp_path / f"{bits}.tif"
        path.write_bytes(planes(np.moveaxis(values, -1, 0), bits))
        if bits == 16:
            assert "channels of 16 bits in planes of their own" in refusal(path)
        else:
            assert np.array_equal(np.asarray(open_picture(path)), blocks())


def planes(values: NDArray[np.generic], bits: int) -> bytes:
    """A TIFF, not compressed, each of whose three channels is a strip of its own."""
    _, height, width = values.shape
    size = values[0].nbytes
    tags = {256: (width,), 257: (height,), 258: (bits,) * 3, 259: (1,), 262: (2,), 273: (), 277: (3,), 278: (height,), 279: (size,) * 3, 284: (2,)}  # fmt: skip
    at = 8 + 2 + 12 * len(tags) + 4
    behind, entries = b"", b""
    for tag, given in tags.items():
        numbers = given or tuple(at + 36 + size * index for index in range(3))
        raw = b"".join(number.to_bytes(4, "little") for number in numbers)
        where = raw if len(raw) == 4 else (at + len(behind)).to_bytes(4, "little")
        behind += raw if len(raw) > 4 else b""
        entries += tag.to_bytes(2, "little") + b"\4\0" + len(numbers).to_bytes(4, "little") + where
    return b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4) + behind + values.tobytes()


def test_a_tiff_of_signed_numbers_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RANGE).save(tmp_path / "a.tif", tiffinfo={339: 2})
    assert "signed numbers" in refusal(tmp_path / "a.tif")
