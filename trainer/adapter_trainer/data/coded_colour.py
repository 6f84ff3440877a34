"""What a PNG or an AVIF says of its colours in code points (ITU-T H.273), which Pillow passes over."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapter_trainer.data.iso_boxes import boxes, inside

HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of screens that are brighter than sRGB's white: no 8 bits of sRGB are said to be right."""
_UNKNOWN_TRANSFER = frozenset({9, 10, 17})
"""Logarithms and cinema's: no screen's."""
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
"""Transfer functions that are a power. The others are sRGB's, and those of video, which screens show alike."""

D65, C = (0.3127, 0.329), (0.31, 0.316)
_PRIMARIES = {
    4: (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (*C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
"""x and y of white, red, green and blue, by code; of those that are not here, sRGB's."""
_MOST_METADATA = 2**20
"""Bytes of an AVIF's."""


@dataclass(frozen=True)
class CodedColour:
    """Codes of primaries and transfer function."""

    primaries: int
    transfer: int
    is_full_range: bool = True

    @property
    def refusal(self) -> str | None:
        """Why no right pixels are certain, if so."""
        if self.transfer in HDR:
            return f"is made for HDR screens ({HDR[self.transfer]}), of which no right colours on others are certain; save it as SDR"
        if not self.is_full_range:
            return "holds numbers of video's range; save it in sRGB"
        if self.transfer in _UNKNOWN_TRANSFER or self.primaries == 10:
            return f"has colours of code points {self.primaries} and {self.transfer}, which no screen shows; save it in sRGB"
        return None

    @property
    def exponent(self) -> float | None:
        """By which light follows from numbers; None for sRGB's own curve."""
        return _EXPONENTS.get(self.transfer)

    @property
    def chromaticity(self) -> tuple[float, ...] | None:
        """White, red, green and blue by x and y; None for sRGB's."""
        return _PRIMARIES.get(self.primaries)


def coded_colour(kind: str | None, source: Path | io.BytesIO) -> CodedColour | None:
    """PNG's cICP or the primary picture's nclx of an AVIF; None for other formats, and where it is not said."""
    if kind not in {"PNG", "AVIF"}:
        return None
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as stream:
        return _of_png(stream) if kind == "PNG" else _of_avif(stream)


def _of_png(stream: BinaryIO) -> CodedColour | None:
    stream.seek(8)
    while len(start := stream.read(8)) == 8 and start[4:] != b"IDAT":
        length = int.from_bytes(start[:4], "big")
        if start[4:] == b"cICP" and length == 4:
            primaries, transfer, _, is_full = stream.read(4)
            return CodedColour(primaries, transfer, bool(is_full))
        stream.seek(length + 4, io.SEEK_CUR)
    return None


def _of_avif(stream: BinaryIO) -> CodedColour | None:
    for kind, at, length in boxes(stream):
        if kind == b"meta" and length <= _MOST_METADATA:
            stream.seek(at + 4)  # version and flags
            return _of_metadata(dict(inside(stream.read(length - 4))))
    return None


def _of_metadata(metadata: dict[bytes, bytes]) -> CodedColour | None:
    properties = dict(inside(metadata.get(b"iprp", b"")))
    item = metadata.get(b"pitm", b"")
    primary = int.from_bytes(item[4:6] if item[:1] == b"\0" else item[4:8], "big")
    numbered = list(inside(properties.get(b"ipco", b"")))
    for number in _properties_of(primary, properties.get(b"ipma", b"")):
        kind, content = numbered[number - 1] if 0 < number <= len(numbered) else (b"", b"")
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
            # Its range is that of the coded planes, which are decoded by it.
            return CodedColour(int.from_bytes(content[4:6], "big"), int.from_bytes(content[6:8], "big"))
    return None


def _properties_of(item: int, associations: bytes) -> list[int]:
    """Numbers, from 1, of an item's properties."""
    stream = io.BytesIO(associations)
    version, wide = stream.read(1), stream.read(3)[-1:] == b"\1"
    for _ in range(int.from_bytes(stream.read(4), "big")):
        this = int.from_bytes(stream.read(2 if version == b"\0" else 4), "big")
        if not (count := stream.read(1)):
            break
        read = [stream.read(2 if wide else 1) for _ in range(count[0])]
        if this == item:
            return [int.from_bytes(each, "big") & (0x7FFF if wide else 0x7F) for each in read]
    return []
