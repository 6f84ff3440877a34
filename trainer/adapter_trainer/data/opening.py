"""The one place where pictures are opened: as viewers show them, or refused by name where that is not certain."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, GifImagePlugin, Image, TiffImagePlugin

from adapter_trainer.data.coded_colour import coded_colour
from adapter_trainer.data.colour import CODED, in_srgb
from adapter_trainer.data.jpeg2000 import channel_bits
from adapter_trainer.errors import InvalidData

if TYPE_CHECKING:
    from adapter_trainer.data.images import Size  # brings torch, which opening a picture does without

Colour = tuple[int, ...]
"""Red, green and blue from 0 to 255."""
Box = tuple[int, int, int, int]
"""Left, top, right and bottom."""

WHITE: Colour = (255, 255, 255)
MAX_PIXELS = 2**28
"""A picture that claims more is refused rather than decoded: 3 bytes a pixel would be 0.75 GiB."""
MAX_RATIO = 16
"""Of the longer to the shorter side; what is kept of a longer picture shows next to nothing of it, and scaling it costs
memory by all of it."""
Image.MAX_IMAGE_PIXELS = None  # ours is checked instead, and Pillow would only warn up to twice its own

TAKEN = frozenset({
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "ICO", "IM", "JPEG", "JPEG2000",
    "MPO", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XPM",
})  # fmt: skip
"""Formats by Pillow's names. Others are drawn by other programs (EPS, WMF), are measurements without a white (FITS, SPIDER,
GRIB, HDF5, BUFR, MCIDAS), parts of films (MPEG), sets of icons that are decoded otherwise than they say (ICNS), what Pillow shows in negative (XBM), or rare and not shown to be read right
(PCD, IPTC, IMT, XV thumbnails)."""

_WIDE = {"PNG": 65535, "JPEG2000": 65535, "PPM": 65535}
"""White of pictures of more than 8 bits a channel, by format; in a TIFF it follows from its bits."""
_WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_OF_SEVERAL = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})
"""Formats whose further frames or pages are pictures of their own. The others hold other sizes of the one, layers, or previews."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of an EXIF orientation upright."""
_LYING = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it before it is decoded."""

    size: "Size"
    """Upright."""
    has_frames: bool
    """Whether there are further frames or pages, which are not read."""


def open_picture(path: Path, background: Colour = WHITE) -> Image.Image:
    """The first frame of a picture, decoded: upright, 8 bits, in sRGB, opaque; mode L where it has no colours, else RGB.

    Args:
        path: the file.
        background: what shows through transparent parts.

    Raises:
        InvalidData: not a picture, cut short, too large or too long, or of a kind of which no right pixels are certain.
    """
    _check_file(path.name, path)
    with _named(path.name, "decoded"), Image.open(path) as image:
        _check(path.name, image, path)
        outside = _outside_of_frame(image)
        picture = _covered(_opaque(_of_bytes(path, image), background), outside, background)
        method = None if _turns_itself(image) else _UPRIGHT.get(_orientation(image))
        return picture if method is None else picture.transpose(method)


def read_header(name: str, source: Path | io.BytesIO) -> Header:
    """Reads only as much of a picture as says what it is.

    Raises:
        InvalidData: not a picture, too large or too long, or of a kind of which no right pixels are certain.
    """
    _check_file(name, source)
    with _named(name, "opened"), Image.open(source) as image:
        _check(name, image, source)
        lies = not _turns_itself(image) and _orientation(image, source) in _LYING
        size = (image.width, image.height) if lies else (image.height, image.width)
        return Header(size, image.format in _OF_SEVERAL and bool(getattr(image, "is_animated", False)))


def _check_file(name: str, source: Path | io.BytesIO) -> None:
    """A named pipe would be waited for without end."""
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise InvalidData(f"{name} is not a regular file; replace or remove it")


@contextmanager
def _named(name: str, what: str) -> Iterator[None]:
    """Whatever goes wrong in a decoder is a fault of the file, which is named."""
    try:
        yield
    except InvalidData:
        raise
    except MemoryError:
        raise InvalidData(f"{name} cannot be {what}: there is not enough memory for it; shrink it") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a broken file leads them to
        raise InvalidData(f"{name} cannot be {what}: {_short(error)}; replace or remove it") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# --- what is refused ---


def _check(name: str, image: Image.Image, source: Path | io.BytesIO) -> None:
    height, width = image.height, image.width
    if width * height > MAX_PIXELS:
        raise InvalidData(f"{name} claims {width} x {height} pixels, more than {MAX_PIXELS}; shrink it")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidData(
            f"{name} is {width} x {height} pixels, one side more than {MAX_RATIO} times the other; crop it or leave it out"
        )
    if (reason := _uncertain(image)) is not None:
        raise InvalidData(f"{name} {reason}; save it as PNG with 8 bits a channel")
    coded = coded_colour(image.format, source)
    if coded is not None and coded.refusal is not None and not _has_profile_before(image):
        raise InvalidData(f"{name} {coded.refusal}")
    if image.format == "JPEG2000" and image.mode not in _WIDE_MODES and max(channel_bits(source), default=8) > 8:
        # Pillow 12.3 rounds to 8 bits past 255: what is white becomes 0, in colours and in alpha.
        raise InvalidData(f"{name} has colours of more than 8 bits in a JPEG 2000; save it as PNG")


def _uncertain(image: Image.Image) -> str | None:
    """Why no right pixels are certain, if so."""
    if image.format not in TAKEN:
        return f"is a {image.format} file, which is not read here"
    if image.mode == "F" or (image.mode == "I" and image.format not in _WIDE):
        return f"holds numbers ({image.format} of mode {image.mode}) of which none is said to be white"
    if image.mode in _WIDE_MODES and image.format not in {*_WIDE, "TIFF"}:
        return f"has more than 8 bits a channel, and {image.format} does not say which number is white"
    if image.format == "TIFF" and (odd := _odd_tiff(image)):
        return odd
    if image.format == "PSD" and image.mode not in {"RGB", "CMYK"}:
        return f"is a Photoshop document of mode {image.mode}, whose flattened picture is not certain"
    return None


def _odd_tiff(image: Image.Image) -> str | None:
    """What Pillow 12.3 decodes to other numbers than the file's, if it is that."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    is_raw = bool(image.tile) and image.tile[0][0] == "raw"
    if bits > 8 and is_raw and image.mode not in _WIDE_MODES and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return f"has channels of {bits} bits in planes of their own"
    if bits == 8 and set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) - {1, 4}:
        return "holds signed numbers of which none is said to be white"
    return None


def _has_profile_before(image: Image.Image) -> bool:
    """Whether a profile says more of the colours than code points: in an AVIF; in a PNG code points come first."""
    return image.format == "AVIF" and isinstance(image.info.get("icc_profile"), bytes)


# --- as viewers show it ---


def _of_bytes(path: Path, image: Image.Image) -> Image.Image:
    """The decoded picture in L, RGB or CMYK, or in LA or RGBA where it has transparent parts."""
    image.load()
    info, kind = image.info, image.format
    transparent = image.has_transparency_data
    if image.mode in _WIDE_MODES:
        found = _narrowed(image)
    elif kind == "PNG" and "transparency" in info and image.mode in {"L", "RGB"}:
        found = _with_one_transparent(path, image)
    elif kind == "TGA" and image.mode == "RGBA" and not _bytes_of(path, 17)[0] & 15:
        found = image.convert("RGB")  # the header says that the fourth channel is no alpha
    elif image.mode == "CMYK":
        found = image
    else:
        mode = ("L" if image.mode in {"1", "L", "LA", "La"} else "RGB") + ("A" if transparent else "")
        found = image if image.mode == mode else image.convert(mode)
    found.info, found.format = {**info, CODED: coded_colour(kind, path)}, kind
    return found


def _narrowed(image: Image.Image) -> Image.Image:
    numbers = np.asarray(image).astype(np.int64)
    white, is_inverted = _WIDE.get(image.format or "", 0), False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        white = 2 ** int(image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0]) - 1
        is_inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    grey = ((numbers.clip(0, white) * 255 + white // 2) // white).astype(np.uint8)
    narrow = Image.fromarray(255 - grey if is_inverted else grey)
    if isinstance(clear := image.info.get("transparency"), int):
        alpha = Image.fromarray(np.where(numbers == clear, 0, 255).astype(np.uint8))
        narrow = Image.merge("LA", (narrow, alpha))
    return narrow


def _with_one_transparent(path: Path, image: Image.Image) -> Image.Image:
    """Of a PNG, whose transparent colour is counted in its own bits, which pixels no longer have.

    Raises:
        InvalidData: colours of 16 bits, of which pixels keep 8.
    """
    bits, clear = _bytes_of(path, 24)[0], image.info["transparency"]
    if bits == 16:
        raise InvalidData(
            f"{path.name} has 16 bits a channel and one transparent colour, which 8 bits cannot tell from its neighbours; "
            "save it with an alpha channel"
        )
    if isinstance(clear, int):
        alpha = np.where(np.asarray(image) == clear * 255 // (2**bits - 1), 0, 255)
        return Image.merge("LA", (image, Image.fromarray(alpha.astype(np.uint8))))
    return image.convert("RGBA")


def _bytes_of(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(1)


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode not in {"LA", "RGBA"}:
        return in_srgb(image)
    colours = image.convert(image.mode[:-1])
    colours.info, colours.format = image.info, image.format
    colours, alpha = in_srgb(colours), image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours
    if colours.mode == "L" and len(set(background)) == 1:
        canvas = Image.new("L", image.size, background[0])
    else:
        canvas = Image.new("RGB", image.size, background)
    canvas.paste(colours.convert(canvas.mode), mask=alpha)
    return canvas


def _outside_of_frame(image: Image.Image) -> list[Box]:
    """Parts of a GIF that its first frame leaves out; viewers show nothing there."""
    if not isinstance(image, GifImagePlugin.GifImageFile) or not image.tile:
        return []
    left, top, right, bottom = image.tile[0][1] or (0, 0, *image.size)
    boxes = [
        (0, 0, image.width, top),
        (0, bottom, image.width, image.height),
        (0, 0, left, image.height),
        (right, 0, image.width, image.height),
    ]
    return [box for box in boxes if box[0] < box[2] and box[1] < box[3]]


def _covered(picture: Image.Image, boxes: list[Box], background: Colour) -> Image.Image:
    if boxes and len(set(background)) > 1:
        picture = picture.convert("RGB")
    for box in boxes:
        picture.paste(background if picture.mode == "RGB" else background[0], box)
    return picture


def _turns_itself(image: Image.Image) -> bool:
    """Whether Pillow turns this format upright."""
    return image.format == "TIFF"


def _orientation(image: Image.Image, source: Path | io.BytesIO | None = None) -> int:
    """As EXIF or XMP says; `source` is that of a picture that has not been decoded."""
    try:
        # Of a PNG, Pillow decodes all to see whether metadata follows the pixels.
        has_all = image.format != "PNG" or source is None or _has_metadata_behind(source)
        exif: Image.Exif = image.getexif() if has_all else Image.Image.getexif(image)
        found: Any = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - viewers pass over metadata that cannot be read
        return 1
    return found if isinstance(found, int) else 1


def _has_metadata_behind(source: Path | io.BytesIO) -> bool:
    """Whether a PNG has metadata behind its pixels."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as file:
        file.seek(8)
        is_behind = False
        while len(start := file.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            is_behind = is_behind or kind == b"IDAT"
            if is_behind and kind in {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}:
                return True
            file.seek(length + 4, io.SEEK_CUR)
    return False
