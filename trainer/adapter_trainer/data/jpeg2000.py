"""How many bits the channels of a JPEG 2000 have, which Pillow keeps for itself."""

import io
from pathlib import Path
from typing import BinaryIO

from adapter_trainer.data.iso_boxes import boxes

_START = b"\xff\x4f\xff\x51"
"""Of a codestream: its own marker, and that of the sizes."""
_TO_COUNT = 38
"""Bytes from the sizes' marker to the number of channels."""


def channel_bits(source: Path | io.BytesIO) -> list[int]:
    """Bits of each channel; empty where the file does not say."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as stream:
        at = _codestream(stream)
        if at is None:
            return []
        stream.seek(at + 2 + _TO_COUNT)
        count = int.from_bytes(stream.read(2), "big")
        sizes = stream.read(3 * min(count, 16))
        return [(each & 0x7F) + 1 for each in sizes[::3]]


def _codestream(stream: BinaryIO) -> int | None:
    places = [0]
    stream.seek(0)
    places += [at for kind, at, _ in boxes(stream) if kind == b"jp2c"]
    for at in places:
        stream.seek(at)
        if stream.read(len(_START)) == _START:
            return at
    return None
