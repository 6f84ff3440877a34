"""Tensors of a checkpoint: one file for each part of the state, or one for each rank with its rows of that part.

    <part>.safetensors                           the whole part
    <part>.shard-<rank>-of-<ranks>.safetensors   rows (dimension 0); in the order of ranks they make up the whole. What has
                                                 no rows to share out is in the first one only

Any number of processes reads both. A tensor is read when it is asked for.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DamagedCheckpoint

SUFFIX = ".safetensors"
_SHARD = re.compile(r"(?P<part>.+)\.shard-(?P<rank>\d{5})-of-(?P<ranks>\d{5})")
_RANDOM = "random-rank-"


@dataclass(frozen=True)
class StoredTensors(Mapping[str, Tensor]):
    """Tensors by name; each is put together from what reads its pieces."""

    pieces: dict[str, tuple[Callable[[], Tensor], ...]]

    def __getitem__(self, name: str) -> Tensor:
        read = [piece() for piece in self.pieces[name]]
        return read[0] if len(read) == 1 else torch.cat(read)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def part(self, name: str) -> "StoredTensors":
        """One part of the state, its tensors by their own names."""
        start = f"{name}:"
        return StoredTensors({key.removeprefix(start): of for key, of in self.pieces.items() if key.startswith(start)})


def name_of(part: str, rank: int, shards: int) -> str:
    """The file of a part, such as `model/unet`, that a rank writes: of `shards` files that there are, 0 for one whole."""
    return f"{part}{f'.shard-{rank:05d}-of-{shards:05d}' if shards else ''}{SUFFIX}"


def own(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What a rank writes of tensors that have the same names on every rank: its rows of those that are sharded."""
    found = {}
    for name, value in tensors.items():
        rows = value.detach()
        if isinstance(rows, DTensor):
            if (local := rows.to_local()).numel():
                found[name] = local
        elif rank == 0:
            found[name] = rows
    return found


def is_shard(name: str) -> bool:
    """Whether a file holds one rank's rows."""
    return _SHARD.fullmatch(name.removesuffix(SUFFIX)) is not None


def names_in(folder: Path) -> list[str]:
    """The files of this kind in a checkpoint's folder, random states apart; relative, with slashes, sorted."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    return sorted(name for name in found if not name.startswith(_RANDOM))


def missing_shards(names: list[str]) -> list[str]:
    """What would have to be there besides `names` for each part to be whole."""
    absent = set()
    for name in names:
        if (match := _SHARD.fullmatch(name.removesuffix(SUFFIX))) is not None:
            ranks = int(match["ranks"])
            whole = {f"{match['part']}.shard-{rank:05d}-of-{ranks:05d}{SUFFIX}" for rank in range(ranks)}
            absent |= whole - set(names)
    return sorted(absent)


def stored(folder: Path) -> StoredTensors:
    """All tensors in a folder, as `<part>:<name>`.

    Raises:
        DamagedCheckpoint: ranks' shares are missing.
        OSError, SafetensorError: a file cannot be read.
    """
    names = names_in(folder)
    _refuse_missing(folder, names)
    return _joined({name: _reading(folder / name) for name in names})


def gathered(folder: Path, names: list[str], processes: Processes) -> StoredTensors:
    """The same where nodes have different files in their folders: what one lacks it receives; collective.

    Args:
        folder: This rank's.
        names: The files in it that it may read.
        processes: All of them.

    Raises:
        DamagedCheckpoint: on all ranks; no rank has some file.
    """
    everywhere = processes.gather(names)
    union = sorted(set().union(*everywhere))
    _refuse_missing(folder, union)
    files = {}
    for name in union:
        holders = [name in theirs for theirs in everywhere]
        if all(holders):
            files[name] = _reading(folder / name)
            continue
        source = holders.index(True)
        received = processes.broadcast(load_file(folder / name) if processes.rank == source else None, source)
        files[name] = {key: _constant(value) for key, value in received.items()}
    return _joined(files)


def _refuse_missing(folder: Path, names: list[str]) -> None:
    if absent := missing_shards(names):
        raise DamagedCheckpoint(
            f"{folder}: {absent[0]} is on no node, one of {len(absent)} files; use another checkpoint"
        )


def _reading(path: Path) -> dict[str, Callable[[], Tensor]]:
    opened: Any = safe_open(path, framework="pt")
    return {name: _piece(opened, name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping


def _piece(opened: Any, name: str) -> Callable[[], Tensor]:
    return lambda: opened.get_tensor(name)


def _constant(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def _joined(files: Mapping[str, Mapping[str, Callable[[], Tensor]]]) -> StoredTensors:
    """`files` by name; their order is that of ranks."""
    pieces: dict[str, tuple[Callable[[], Tensor], ...]] = {}
    for file in sorted(files):
        stem = file.removesuffix(SUFFIX)
        match = _SHARD.fullmatch(stem)
        part = stem if match is None else match["part"]
        for name, piece in files[file].items():
            key = f"{part}:{name}"
            pieces[key] = (*pieces.get(key, ()), piece)
    return StoredTensors(pieces)
