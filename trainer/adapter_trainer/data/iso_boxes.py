"""Boxes of files that are made of them: AVIF (ISO/IEC 14496-12) and JPEG 2000 (ISO/IEC 15444-1, annex I)."""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_HEAD = struct.Struct(">I4s")
_LONG = struct.Struct(">Q")


def boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of the content of each box from where the stream is; ends where they make no sense."""
    at = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    while at + _HEAD.size <= end:
        stream.seek(at)
        length, kind = _HEAD.unpack(stream.read(_HEAD.size))
        head = _HEAD.size
        if length == 1 and len(more := stream.read(_LONG.size)) == _LONG.size:
            length, head = _LONG.unpack(more)[0], head + _LONG.size
        length = end - at if length == 0 else min(length, end - at)
        if length < head:
            return
        yield kind, at + head, length - head
        at += length


def inside(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box in the content of another."""
    stream = io.BytesIO(content)
    yield from ((kind, content[at : at + length]) for kind, at, length in boxes(stream))
