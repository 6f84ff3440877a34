"""Host memory in which a checkpoint's files lie as they will lie on disk, so that writing them is copying bytes.

Tensor files are laid out in safetensors' format (github.com/huggingface/safetensors, "Format"). The memory is a file
without a name (memfd_create(2)): another process can send it to disk without mapping it, it needs no room in /dev/shm,
and it goes with the last process that holds it.
"""

import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_ALIGNMENT = 64
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""In the order in which tensors lie in a file: by falling size of an element, which keeps every tensor aligned."""
_ORDER = {dtype: index for index, dtype in enumerate(_DTYPES)}


@dataclass
class Contents:
    """What a checkpoint folder is to hold, by relative file name."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Tensors by name for each .safetensors file: the live ones, on any device."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Small files, as they are now."""


@dataclass(frozen=True)
class Span:
    """Where a file lies."""

    offset: int
    size: int


class Arena:
    """Memory for one checkpoint; allocated when the first one is laid out, and again only when one needs more."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the tensors come from; memory for a GPU's is page-locked, so that copies overlap computing."""
        self.descriptor = os.memfd_create("checkpoint")
        self._pinned = device.type == "cuda"
        self._memory: mmap.mmap | None = None
        self._layout: object = None
        self._views: list[Tensor] = []
        self._spans: dict[str, Span] = {}
        self._end = 0

    def place(self, contents: Contents) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Span]]:
        """Finds a place for everything and puts the small files there.

        Returns:
            Pairs of (place, tensor) that are still to be copied, and where each file lies.
        """
        layout = [
            (file, name, tensor.dtype, tuple(tensor.shape))
            for file, tensors in contents.tensors.items()
            for name, tensor in tensors.items()
        ]
        if layout != self._layout:
            self._lay_out(contents.tensors)
            self._layout = layout
        spans, end = dict(self._spans), self._end
        for file, blob in contents.blobs.items():
            spans[file] = Span(end, len(blob))
            end += len(blob)
        memory = self._reserve(end)
        for file, blob in contents.blobs.items():
            memory[spans[file].offset : spans[file].offset + len(blob)] = blob
        ordered = [tensor for file in contents.tensors.values() for _, tensor in _in_file_order(file)]
        return list(zip(self._views, ordered, strict=True)), spans

    def close(self) -> None:
        """Gives the memory back."""
        self._views = []
        self._memory = None
        os.close(self.descriptor)

    def _lay_out(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._spans, end = {}, 0
        headers: list[tuple[int, bytes]] = []
        places: list[tuple[int, Tensor]] = []
        for file, tensors in files.items():
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            header, offsets = _header(tensors)
            headers.append((start, header))
            places += [(start + len(header) + offset, tensors[name]) for name, offset in offsets.items()]
            end = start + len(header) + sum(tensor.nbytes for tensor in tensors.values())
            self._spans[file] = Span(start, end - start)
        self._end = end
        self._views = []
        memory = self._reserve(end)
        for start, header in headers:
            memory[start : start + len(header)] = header
        for offset, tensor in places:
            raw = (
                torch.frombuffer(memory, dtype=torch.uint8, count=tensor.nbytes, offset=offset)
                if tensor.nbytes
                else (torch.empty(0, dtype=torch.uint8))
            )
            self._views.append(raw.view(tensor.dtype).view(tensor.shape))

    def _reserve(self, size: int) -> mmap.mmap:
        """Memory with room for so much; what was mapped before stays mapped for as long as somebody looks at it."""
        if self._memory is not None and len(self._memory) >= size:
            return self._memory
        room = -(-(size + size // 64 + mmap.PAGESIZE) // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self.descriptor, room)
        memory = self._memory = mmap.mmap(self.descriptor, room)
        if self._pinned:
            address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
            torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(address, room, 0))
        return memory


def _header(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """The header of a safetensors file, and where each tensor begins behind it."""
    described: dict[str, object] = {}
    offsets: dict[str, int] = {}
    end = 0
    for name, tensor in _in_file_order(tensors):
        offsets[name] = end
        described[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets


def _in_file_order(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """As the library orders them: by type, then by name."""
    return sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0]))
