"""Files of pictures that no installed program writes, byte by byte, and profiles; and the one picture that they all show."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (128, 128, 128))
"""Two rows of three, each of 8 x 8 pixels."""
HEIGHT, WIDTH = 16, 24


def blocks() -> NDArray[np.uint8]:
    """The picture, [16, 24, 3]."""
    return np.array(COLOURS, np.uint8).reshape(2, 3, 3).repeat(8, axis=0).repeat(8, axis=1)


def alpha() -> NDArray[np.uint8]:
    """Nothing of the upper half, half of the black block, all of the rest."""
    values = np.array([[0, 0, 0], [128, 255, 255]], np.uint8)
    return values.repeat(8, axis=0).repeat(8, axis=1)


def picture(mode: str) -> Image.Image:
    """The picture in a mode, with `alpha` where that has one."""
    colours = Image.fromarray(blocks())
    grey = colours.convert("L")
    if mode in {"RGBA", "RGBa", "PA", "LA", "La"}:
        base = grey if mode in {"LA", "La"} else colours
        base.putalpha(Image.fromarray(alpha()))
        return base.convert(mode)
    if mode == "P":
        return colours.quantize(len(COLOURS))
    if mode in {"I", "I;16", "I;16B"}:
        kind = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
        return Image.frombytes(mode, grey.size, (np.asarray(grey).astype(np.int64) * 257).astype(kind).tobytes())
    if mode == "F":
        return Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    return colours.convert(mode)


# --- containers that Pillow reads and does not write ---


def png(
    path: Path, depth: int, kind: int, rows: list[bytes], *chunks: tuple[bytes, bytes], behind: bool = False
) -> None:
    """A PNG of any depth and colour type, with further chunks before or behind its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    extra = b"".join(chunk(name, content) for name, content in chunks)
    body = pixels + extra if behind else extra + pixels
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))


def png_rows(values: NDArray[np.generic]) -> list[bytes]:
    """Rows of 8 or 16 bits for `png`."""
    wide = values.astype(values.dtype.newbyteorder(">"))
    return [row.tobytes() for row in wide]


def _cur(path: Path) -> None:
    picture("RGB").save(path, "ICO", sizes=[(WIDTH, HEIGHT)], bitmap_format="bmp")
    content = bytearray(path.read_bytes())
    content[2] = 2  # a cursor, whose entries have a hot spot in place of planes and bits
    content[10:14] = bytes(4)
    path.write_bytes(content)


def _dcx(path: Path) -> None:
    picture("RGB").save(path, "PCX")
    path.write_bytes(struct.pack("<III", 0x3ADE68B1, 12, 0) + path.read_bytes())


def _sun(path: Path) -> None:
    header = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, WIDTH * HEIGHT * 3, 1, 0, 0)
    path.write_bytes(header + blocks()[..., ::-1].tobytes())


def _pixar(path: Path) -> None:
    header = bytearray(1024)
    header[:4] = b"\x80\xe8\x00\x00"
    struct.pack_into("<HH", header, 416, HEIGHT, WIDTH)
    struct.pack_into("<HH", header, 424, 14, 2)
    path.write_bytes(bytes(header) + blocks().tobytes())


def _gbr(path: Path) -> None:
    pixels = np.dstack([blocks(), alpha()])
    path.write_bytes(struct.pack(">7I", 28 + 1, 2, WIDTH, HEIGHT, 4, 0x47494D50, 1) + b"\0" + pixels.tobytes())


def _ftex(path: Path) -> None:
    start = b"FTEX" + struct.pack("<i", 1) + struct.pack("<2i", WIDTH, HEIGHT) + struct.pack("<2i", 1, 1)
    start += struct.pack("<2i", 1, 32)  # uncompressed, and where it is
    path.write_bytes(start + struct.pack("<i", WIDTH * HEIGHT * 3) + blocks().tobytes())


def _xpm(path: Path) -> None:
    letters = "abcdef"
    colours = [f'"{letter} c #{r:02x}{g:02x}{b:02x}",' for letter, (r, g, b) in zip(letters, COLOURS, strict=True)]
    rows = [f'"{"".join(letters[row // 8 * 3 + column // 8] for column in range(WIDTH))}",' for row in range(HEIGHT)]
    lines = ["/* XPM */", "static char * blocks[] = {", f'"{WIDTH} {HEIGHT} {len(letters)} 1",', *colours, *rows, "};"]
    path.write_text("\n".join(lines), encoding="ascii")


def _fli(path: Path) -> None:
    """Two frames: the picture as bytes of a palette, and the same again."""
    palette = bytes(part for colour in COLOURS for part in colour)
    colours = struct.pack("<HBB", 1, 0, len(COLOURS)) + palette
    colours = struct.pack("<IH", len(colours) + 6, 4) + colours
    indices = (np.arange(6, dtype=np.uint8).reshape(2, 3)).repeat(8, axis=0).repeat(8, axis=1).tobytes()
    pixels = struct.pack("<IH", len(indices) + 6, 16) + indices
    frames = b""
    for chunks in ([colours, pixels], [pixels]):
        body = b"".join(chunks)
        frames += struct.pack("<IHH8x", len(body) + 16, 0xF1FA, len(chunks)) + body
    header = struct.pack("<IHHHHHHI", 128 + len(frames), 0xAF12, 2, WIDTH, HEIGHT, 8, 3, 50)
    path.write_bytes(header.ljust(128, b"\0") + frames)


def psd(path: Path, colours: int, planes: list[bytes]) -> None:
    """A Photoshop document of one flat picture; `colours` is Photoshop's number of the mode."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, len(planes), HEIGHT, WIDTH, 8, colours)
    path.write_bytes(header + bytes(12) + struct.pack(">H", 0) + b"".join(planes))


def _psd(path: Path) -> None:
    psd(path, 3, [blocks()[..., channel].tobytes() for channel in range(3)])


CRAFTED: dict[str, Callable[[Path], None]] = {
    "CUR": _cur, "DCX": _dcx, "FLI": _fli, "FTEX": _ftex, "GBR": _gbr, "PIXAR": _pixar, "PSD": _psd, "SUN": _sun, "XPM": _xpm,
}  # fmt: skip
"""By Pillow's name of the format: what writes the picture."""

STARTS = {
    "BUFR": b"BUFR" + bytes(60),
    "FITS": "".join(
        f"{card:<80}"
        for card in ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {WIDTH}", f"NAXIS2  = {HEIGHT}", "END")
    ).encode().ljust(2880) + bytes(2880),
    "GRIB": b"GRIB" + bytes(3) + b"\x01" + bytes(60),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "IMT": b"* IM tools\nwidth 24\nheight 16\npixel n8\n\x0c" + bytes(24 * 16),
    "IPTC": b"\x1c\x03\x3c\x00\x02\x01\x00\x1c\x03\x41\x00\x01\x01\x1c\x03\x14\x00\x02\x00\x18\x1c\x03\x1e\x00\x02\x00\x10"
    b"\x1c\x03\x78\x00\x01\x01\x1c\x08\x0a\x00\x01\x00",
    "MCIDAS": struct.pack(">64i", *[0, 4, 0, 0, 0, 0, 0, 0, HEIGHT, WIDTH, 1, 0, 0, 1] + [0] * 19 + [256] + [0] * 30),
    "MPEG": b"\x00\x00\x01\xb3\x01\x80\x10" + bytes(60),
    "PCD": bytes(2048) + b"PCD_" + bytes(768 * 512 * 3 + 96 * 2048),
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + struct.pack("<hhhhH", 0, 0, 24, 16, 72) + bytes(6) + b"\x01\x00\t\x00" + bytes(60),
    "XVThumb": b"P7 332\n#IMGINFO\n24 16 255\n" + bytes(24 * 16),
}  # fmt: skip
"""What is refused: as many bytes as it takes to be known by name."""


# --- profiles ---


def profile(space: bytes, gamma: float, primaries: tuple[tuple[float, float, float], ...] = ()) -> bytes:
    """An ICC profile (version 2) of a display: one curve, and for RGB its primaries as XYZ adapted to D50."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    tags = {b"wtpt": xyz((0.9642, 1, 0.8249)), b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)}
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0\0\0\0"
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    for name, values in zip((b"r", b"g", b"b"), primaries, strict=False):
        tags |= {name + b"XYZ": xyz(values), name + b"TRC": curve}
    return _with_header(space, b"mntr", b"XYZ ", tags)


ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""Adobe RGB (1998), adapted to D50."""


def ink_profile() -> bytes:
    """An ICC profile of a printer whose inks are paler than those of plain arithmetic: full black ink prints a dark grey."""
    corners = []
    for inks in np.ndindex(2, 2, 2, 2):
        lightness = 100 - 30 * sum(inks[:3]) / 3 - 50 * inks[3]
        corners += [round(lightness * 255 / 100), 128, 128]
    steps = bytes(range(256))
    matrix = struct.pack(">9i", *[65536, 0, 0, 0, 65536, 0, 0, 0, 65536])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + steps * 4 + bytes(corners) + steps * 3
    tags = {b"A2B0": table, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0\0\0\0"
    return _with_header(b"CMYK", b"prtr", b"Lab ", tags)


def _with_header(space: bytes, device: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    index, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        index += name + struct.pack(">II", at + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = struct.pack(">I4sI4s4s4s12x4s", at + len(body), b"none", 0x02400000, device, space, connection, b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + index + body
