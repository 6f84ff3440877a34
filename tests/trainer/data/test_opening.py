"""Every mode and container that the installed Pillow opens: the pixels that viewers show, or a refusal by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, features

from adapter_trainer.data.opening import MAX_RATIO, TAKEN, open_picture, read_header
from adapter_trainer.errors import InvalidData
from tests.trainer.support import picture_files
from tests.trainer.support.picture_files import COLOURS, CRAFTED, STARTS, blocks, picture, png, png_rows

Image.init()

WHITE = (255, 255, 255)
EXACT, LOSSY = 1, 6
"""Levels of 255 by which pixels may differ."""

OPAQUE = np.array(COLOURS, np.uint8)
GREY = np.asarray(Image.fromarray(OPAQUE[None]).convert("L"))[0]
BLACK_AND_WHITE = np.where(GREY > 127, 255, 0)
"""Of the blocks of one colour; in the others, Pillow scatters black and white."""


SAVING: dict[str, dict[str, Any]] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
"""Options that keep colours, by ending."""


def seen(path: Path, **more: Any) -> NDArray[np.uint8]:
    """The colour in the middle of each block, [6, 3] or [6]."""
    image = open_picture(path, **more)
    assert read_header(path.name, path).size == (image.height, image.width)
    assert read_header("x", io.BytesIO(path.read_bytes())).size == (image.height, image.width)
    return np.asarray(image)[4::8, 4::8].reshape(len(COLOURS), *np.asarray(image).shape[2:])


def over(background: tuple[int, ...], colours: NDArray[Any] = OPAQUE) -> NDArray[np.int64]:
    """The blocks where `picture_files.alpha` lets the background through."""
    alpha = np.array([0, 0, 0, 128, 255, 255])[:, None] / 255
    return np.rint(
        colours.reshape(6, -1) * alpha + np.array(background[: colours.reshape(6, -1).shape[1]]) * (1 - alpha)
    ).astype(int)


def refusal(path: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        open_picture(path)
    with pytest.raises(InvalidData):
        read_header(path.name, path)
    return str(caught.value)


# --- containers and modes that Pillow writes ---

SAVED: dict[str, tuple[str, dict[str, Any], int]] = {
    "AVIF": ("1 L LA P PA RGB RGBA RGBX RGBa CMYK YCbCr HSV", {"quality": 100, "subsampling": "4:4:4"}, LOSSY),
    "BLP": ("P", {}, EXACT),
    "BMP": ("1 L P RGB", {}, EXACT),
    "DDS": ("L LA RGB RGBA", {}, EXACT),
    "DIB": ("1 L P RGB", {}, EXACT),
    "GIF": ("1 L P RGB", {}, EXACT),
    "ICO": ("1 L LA P RGB RGBA", {"sizes": [(24, 16)]}, EXACT),
    "IM": ("1 L LA P PA RGB RGBA RGBX CMYK YCbCr", {}, EXACT),
    "JPEG": ("1 L RGB RGBX CMYK YCbCr", {"quality": 100, "subsampling": 0}, LOSSY),
    "JPEG2000": ("L LA I;16 RGB RGBA CMYK YCbCr", {"irreversible": False}, EXACT),
    "MSP": ("1", {}, EXACT),
    "PCX": ("1 L P RGB", {}, EXACT),
    "PNG": ("1 L LA P I;16 RGB RGBA", {}, EXACT),
    "PPM": ("1 L I I;16 RGB", {}, EXACT),
    "QOI": ("RGB RGBA", {}, EXACT),
    "SGI": ("L RGB RGBA", {}, EXACT),
    "TGA": ("1 L LA P RGB RGBA", {}, EXACT),
    "TIFF": ("1 L LA P PA I;16 I;16B RGB RGBA RGBX CMYK LAB", {}, LOSSY),
    "WEBP": ("1 L LA P PA RGB RGBA RGBX RGBa CMYK YCbCr HSV", {"lossless": True, "exact": True}, EXACT),
}  # fmt: skip
"""By format: modes that it keeps or converts to others, how it is saved, and how far it may be off."""
NARROW = {"LAB": 25}
"""Colours at the edge of what 8 bits of Lab hold come back less pure."""


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, (modes, _, _) in SAVED.items() for mode in modes.split()]
)
def test_what_pillow_writes_is_shown_as_it_was(tmp_path: Path, kind: str, mode: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "picture"
    _, options, tolerance = SAVED[kind]
    picture(mode).save(path, kind, **options)
    found = seen(path).astype(int)
    if found.ndim == 1:
        found = found[:, None].repeat(3, axis=1)
    if mode == "1":
        assert np.array_equal(found[3:5, 0], BLACK_AND_WHITE[3:5])
        return
    colours = GREY[:, None].repeat(3, axis=1) if mode in {"L", "LA", "La", "I", "I;16", "I;16B"} else OPAQUE
    expected = over(WHITE, colours) if mode in {"LA", "PA", "RGBA", "RGBa"} else colours.astype(int)
    assert np.abs(found - expected).max() <= NARROW.get(mode, tolerance + 1)


@pytest.mark.parametrize("kind", CRAFTED)
def test_what_pillow_only_reads_is_shown_as_it_was(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    CRAFTED[kind](path)
    expected = over(WHITE) if kind == "GBR" else OPAQUE
    assert np.array_equal(seen(path), expected)


def test_mpo_is_its_first_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    preview = Image.new("RGB", (8, 8))
    picture("RGB").save(path, "MPO", save_all=True, append_images=[preview], quality=100, subsampling=0)
    assert np.abs(seen(path).astype(int) - OPAQUE).max() <= LOSSY
    assert not read_header("picture", path).has_frames


@pytest.mark.parametrize("kind", STARTS)
def test_what_has_no_certain_pixels_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "measured.dat"
    path.write_bytes(STARTS[kind])
    said = refusal(path)
    assert said.startswith("measured.dat is a ")
    assert said.endswith(" file, which is not read here; save it as PNG with 8 bits a channel")


@pytest.mark.parametrize("kind", ["EPS", "ICNS", "SPIDER", "XBM"])
def test_what_pillow_writes_and_viewers_do_not_agree_on_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.dat"
    picture({"SPIDER": "F", "XBM": "1"}.get(kind, "RGB")).save(path, kind)
    assert refusal(path).startswith(f"picture.dat is a {kind} file, which is not read here")


def test_every_container_of_the_installed_pillow_has_a_row() -> None:
    refused = {*STARTS, "EPS", "ICNS", "SPIDER", "XBM"} - {"XVThumb"} | {"XVTHUMB"}
    assert set(Image.OPEN) == TAKEN - {"MPO"} | refused  # MPO is what the opener of JPEG finds
    assert {*SAVED, *CRAFTED, "MPO"} == TAKEN


@pytest.mark.parametrize(("kind", "mode"), [("TIFF", "I"), ("TIFF", "F"), ("IM", "I"), ("IM", "F"), ("PPM", "F")])
def test_numbers_without_a_white_are_refused(tmp_path: Path, kind: str, mode: str) -> None:
    path = tmp_path / "height.dat"
    picture(mode).save(path, kind)
    assert refusal(path) == (
        f"height.dat holds numbers ({kind} of mode {mode}) of which none is said to be white; save it as PNG with 8 bits a "
        "channel"
    )


@pytest.mark.parametrize("kind", ["ICO", "IM"])
def test_wide_numbers_of_formats_without_a_white_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wide.dat"
    picture("I;16").save(path, kind, **SAVED[kind][1])
    assert refusal(path).startswith(
        f"wide.dat has more than 8 bits a channel, and {kind} does not say which number is white"
    )


@pytest.mark.parametrize(("colours", "planes"), [(3, 4), (1, 1), (7, 3), (9, 3)])
def test_photoshop_documents_of_which_the_flat_picture_is_not_certain_are_refused(
    tmp_path: Path, colours: int, planes: int
) -> None:
    path = tmp_path / "layers.psd"
    picture_files.psd(path, colours, [bytes(16 * 24)] * planes)
    assert refusal(path).startswith("layers.psd is a Photoshop document of mode ")


# --- more than 8 bits ---


def test_a_tiff_of_12_bits_has_its_own_white(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = [0, 4095, 2048, 16]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(values[::2], values[1::2], strict=True)
    )
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    path.write_bytes(tiff(tags, packed))
    assert np.asarray(open_picture(path)).tolist() == [[0, 255, 128, 1]]


def test_a_tiff_whose_white_is_zero_is_turned_around(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.array([0, 65535, 0x8000, 257], "<u2").tobytes()
    tags = {256: 4, 257: 1, 258: 16, 259: 1, 262: 0, 273: 0, 277: 1, 278: 1, 279: len(values)}
    path.write_bytes(tiff(tags, values))
    assert np.asarray(open_picture(path)).tolist() == [[255, 0, 127, 254]]


def tiff(tags: dict[int, int], pixels: bytes) -> bytes:
    """A TIFF of one strip that begins after the tags."""
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + (at if tag == 273 else value).to_bytes(4, "little")
        for tag, value in sorted(tags.items())
    )
    return b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4) + pixels


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_keeps_its_range(tmp_path: Path, kind: int, channels: int) -> None:
    values = np.array([[0, 65535, 0x8000, 0x0100]], np.uint16)[..., None].repeat(channels, axis=2)
    if channels in {2, 4}:
        values[..., -1] = 65535
    png(tmp_path / "a.png", 16, kind, png_rows(values))
    image = np.asarray(open_picture(tmp_path / "a.png")).reshape(4, -1)[:, 0].astype(int)
    assert np.abs(image - [0, 255, 128, 1]).max() <= 1


# --- transparent parts ---


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_background_shows_through(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    image = picture("RGBA" if mode == "P" else mode)
    (image.quantize(64) if mode == "P" else image).save(path)
    colours = GREY[:, None].repeat(3, axis=1) if mode == "LA" else OPAQUE
    assert np.abs(seen(path, background=(10, 200, 30)).astype(int) - over((10, 200, 30), colours)).max() <= EXACT
    grey = seen(path, background=(50, 50, 50))
    assert grey.ndim == (1 if mode == "LA" else 2)


def test_what_is_hidden_below_full_transparency_is_not_shown(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    for name, options in {"a.png": {}, "a.webp": {"lossless": True, "exact": True}, "a.tif": {}}.items():
        image.save(tmp_path / name, **options)  # type: ignore[arg-type]  # by name of an option
        assert set(np.asarray(open_picture(tmp_path / name)).flatten()) == {255}


def test_one_transparent_entry_of_a_palette(tmp_path: Path) -> None:
    image = picture("P")
    red = image.getpixel((4, 4))
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=red)
        assert np.array_equal(seen(tmp_path / name), [WHITE, *COLOURS[1:]])
    image.save(tmp_path / "b.png", transparency=bytes(128 if index == red else 255 for index in range(6)))
    assert np.array_equal(seen(tmp_path / "b.png"), [(255, 127, 127), *COLOURS[1:]])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_grey_is_counted_in_the_bits_of_the_file(tmp_path: Path, depth: int) -> None:
    clear = {1: 0, 2: 1, 4: 5, 8: 0x55, 16: 0x5555}[depth]
    other = 2**depth - 1
    length = max(1, 2 * depth // 8)
    row = ((clear << depth | other) << (8 * length - 2 * depth)).to_bytes(length, "big")
    png(tmp_path / "a.png", depth, 0, [row], (b"tRNS", clear.to_bytes(2, "big")))
    pixels = np.asarray(open_picture(tmp_path / "a.png", (9, 9, 9)))
    assert pixels[0, 0] == 9
    assert 255 in pixels[0]


def test_one_transparent_colour_of_8_bits_is_and_of_16_is_refused(tmp_path: Path) -> None:
    values = np.array([[(10, 20, 30), (200, 100, 50)]], np.uint8)
    clear = b"\0\x0a\0\x14\0\x1e"
    png(tmp_path / "a.png", 8, 2, png_rows(values), (b"tRNS", clear))
    assert np.asarray(open_picture(tmp_path / "a.png")).tolist() == [[[255, 255, 255], [200, 100, 50]]]
    png(tmp_path / "b.png", 16, 2, png_rows(values.astype(np.uint16) * 257), (b"tRNS", clear))
    with pytest.raises(InvalidData, match=r"b\.png has 16 bits a channel and one transparent colour"):
        open_picture(tmp_path / "b.png")


def test_a_tga_that_says_its_fourth_channel_is_no_alpha_is_opaque(tmp_path: Path) -> None:
    path = tmp_path / "a.tga"
    picture("RGBA").save(path)
    content = bytearray(path.read_bytes())
    content[17] &= 0xF0
    path.write_bytes(content)
    assert np.array_equal(seen(path), OPAQUE)


@pytest.mark.parametrize("background", [WHITE, (0, 0, 200)])
def test_what_the_first_frame_of_a_gif_leaves_out_is_background(tmp_path: Path, background: tuple[int, ...]) -> None:
    path = tmp_path / "a.gif"
    Image.new("P", (4, 2)).save(path)
    content = bytearray(path.read_bytes())
    content[6:10] = b"\x08\0\x06\0"  # the canvas is larger than the frame
    at = content.index(b",", 13)
    content[at + 1 : at + 5] = b"\x02\0\x01\0"
    path.write_bytes(content)
    pixels = np.asarray(open_picture(path, background).convert("RGB"))
    assert pixels.shape == (6, 8, 3)
    assert set(pixels[1:3, 2:6].flatten()) == {0}
    outside = np.ones((6, 8), bool)
    outside[1:3, 2:6] = False
    assert (pixels[outside] == background).all()


# --- upright ---

LAYING = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How pixels lie in the file of each EXIF orientation (CIPA DC-008, 4.6.4)."""


@pytest.mark.parametrize("orientation", LAYING)
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".avif", ".tif", ".mpo"])
def test_pictures_are_turned_upright_and_so_is_their_size(tmp_path: Path, ending: str, orientation: int) -> None:
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a{ending}"
    method = LAYING[orientation]
    lying = picture("RGB") if method is None else picture("RGB").transpose(method)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = SAVING.get(ending, {})
    if ending == ".mpo":
        options = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))], "quality": 100, "subsampling": 0}
    lying.save(path, exif=exif, **options)
    assert read_header("a", path).size == (16, 24)
    assert np.abs(seen(path).astype(int) - OPAQUE).max() <= 12


@pytest.mark.parametrize("where", ["before", "behind", "raw profile", "XMP"])
def test_a_png_may_say_its_orientation_anywhere(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.png"
    lying = picture("RGB").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if where in {"before", "behind"}:
        png(path, 8, 2, png_rows(np.asarray(lying)), (b"eXIf", exif.tobytes()[6:]), behind=where == "behind")
    else:
        info = PngImagePlugin.PngInfo()
        if where == "XMP":
            info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>')
        else:  # as ImageMagick 6 wrote it
            info.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n")
        lying.save(path, pnginfo=info)
    assert np.array_equal(seen(path), OPAQUE)


def test_metadata_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture("RGB").save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01", quality=100, subsampling=0)
    assert np.abs(seen(path).astype(int) - OPAQUE).max() <= LOSSY


# --- colours ---


def in_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055) * 255


SOFT = np.array(
    [(200, 80, 60), (130, 160, 100), (100, 100, 170), (20, 20, 20), (235, 235, 235), (128, 128, 128)], np.uint8
)
"""Colours that both spaces hold."""
TO_SRGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])
"""Linear Adobe RGB (1998) to linear sRGB."""


def soft() -> Image.Image:
    return Image.fromarray(SOFT.reshape(2, 3, 3).repeat(8, axis=0).repeat(8, axis=1))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_colours_of_a_profile_become_srgb(tmp_path: Path, name: str) -> None:
    profile = picture_files.profile(b"RGB ", 2.19921875, picture_files.ADOBE)
    options = SAVING.get(Path(name).suffix, {})
    soft().save(tmp_path / name, icc_profile=profile, **options)
    expected = in_srgb((SOFT / 255) ** 2.19921875 @ TO_SRGB.T)
    assert np.abs(seen(tmp_path / name) - expected).max() <= 3
    assert np.abs(SOFT - expected).max() > 20


def test_a_grey_profile_leaves_a_grey_picture(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 64, 128, 255]], np.uint8)).save(
        tmp_path / "a.png", icc_profile=picture_files.profile(b"GRAY", 1.0)
    )
    image = open_picture(tmp_path / "a.png")
    assert image.mode == "L"
    assert np.abs(np.asarray(image) - in_srgb(np.array([0, 64, 128, 255]) / 255)).max() <= 2


def test_inks_are_those_of_their_profile(tmp_path: Path) -> None:
    picture("CMYK").save(tmp_path / "plain.tif")
    picture("CMYK").save(tmp_path / "a.tif", icc_profile=picture_files.ink_profile())
    assert np.array_equal(seen(tmp_path / "plain.tif")[3], (0, 0, 0))
    black, white = seen(tmp_path / "a.tif")[3:5]
    assert 80 < black[0] < 200  # black alone is half dark here
    assert np.array_equal(white, WHITE)


def test_srgb_under_any_name_leaves_every_pixel_as_it_is(tmp_path: Path) -> None:
    from PIL import ImageCms

    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(random).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), random)


@pytest.mark.parametrize(
    "profile", [b"damaged", picture_files.profile(b"GRAY", 1.0)], ids=["damaged", "of another space"]
)
def test_a_profile_that_does_not_fit_is_passed_over_as_viewers_do(tmp_path: Path, profile: bytes) -> None:
    picture("RGB").save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(seen(tmp_path / "a.png"), OPAQUE)


ADOBES_PRIMARIES = b"".join(
    round(value * 100000).to_bytes(4, "big") for value in (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
)
SRGBS_PRIMARIES = b"".join(
    round(value * 100000).to_bytes(4, "big") for value in (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
)


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", round(value * 100000).to_bytes(4, "big")


def test_a_png_without_a_profile_has_its_gamma_and_primaries(tmp_path: Path) -> None:
    rows = png_rows(np.asarray(soft()))
    png(tmp_path / "linear.png", 8, 2, rows, gamma(1.0))
    assert np.abs(seen(tmp_path / "linear.png") - in_srgb(SOFT / 255)).max() <= 1
    png(tmp_path / "adobe.png", 8, 2, rows, gamma(0.45455), (b"cHRM", ADOBES_PRIMARIES))
    assert np.abs(seen(tmp_path / "adobe.png") - in_srgb((SOFT / 255) ** 2.2 @ TO_SRGB.T)).max() <= 2
    png(
        tmp_path / "grey.png",
        8,
        0,
        png_rows(np.array([[0, 64, 255]], np.uint8)),
        gamma(1.0),
        (b"cHRM", ADOBES_PRIMARIES),
    )
    assert np.asarray(open_picture(tmp_path / "grey.png")).tolist() == [[0, 137, 255]]


@pytest.mark.parametrize(
    "chunks",
    [[gamma(0.45455)], [gamma(0.45455), (b"cHRM", SRGBS_PRIMARIES)], [(b"sRGB", b"\0"), gamma(1.0)], [gamma(0.0)], [(b"cHRM", ADOBES_PRIMARIES)]],
    ids=["sRGB's gamma", "and primaries", "said to be sRGB", "no gamma", "primaries alone"],
)  # fmt: skip
def test_a_png_in_srgb_keeps_every_pixel(tmp_path: Path, chunks: list[tuple[bytes, bytes]]) -> None:
    png(tmp_path / "a.png", 8, 2, png_rows(blocks()), *chunks)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), blocks())


def test_primaries_that_make_no_colours_are_passed_over(tmp_path: Path) -> None:
    png(tmp_path / "a.png", 8, 2, png_rows(blocks()), gamma(0.45455), (b"cHRM", bytes(32)))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), blocks())


# --- what is plain, long, or animated ---


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures_have_the_pixels_that_pillow_decodes(tmp_path: Path, name: str, mode: str) -> None:
    random = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(random).convert(mode).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(np.asarray(open_picture(tmp_path / name).convert(mode)), np.asarray(image.convert(mode)))


@pytest.mark.parametrize("size", [(MAX_RATIO * 4 + 1, 4), (4, MAX_RATIO * 4 + 1)])
def test_a_picture_that_is_too_long_is_refused_by_name(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(tmp_path / "long.png")
    assert refusal(tmp_path / "long.png") == (
        f"long.png is {size[0]} x {size[1]} pixels, one side more than 16 times the other; crop it or leave it out"
    )
    Image.new("L", (MAX_RATIO * 4, 4)).save(tmp_path / "just.png")
    assert open_picture(tmp_path / "just.png").size == (64, 4)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.avif", "a.tif"])
def test_the_first_frame_is_read_and_further_ones_are_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second])
    assert read_header(name, path).has_frames
    assert np.abs(np.asarray(open_picture(path).convert("RGB")).astype(int)[4, 4] - (255, 0, 0)).max() <= LOSSY
    first.save(path)
    assert not read_header(name, path).has_frames


def test_whatever_a_decoder_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    picture("RGB").save(path)
    for raised, said in ((MemoryError(), "there is not enough memory"), (IndexError("tile"), "tile")):

        def fails(*_: object, raised: Exception = raised) -> None:
            raise raised

        # Broken files that lead a decoder to either are found by fuzzing, and mended in its next version.
        monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", fails)
        with pytest.raises(InvalidData, match=rf"a\.tif cannot be decoded: .*{said}"):
            open_picture(path)
