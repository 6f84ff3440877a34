"""Encodings on disk: files of many items each, complete or absent, found by key, checked when they are read.

    <kind>-<what made it>/<digest of the keys inside>.safetensors

A file's name follows from its keys, so two processes that encode the same items write the same file. Every tensor has a
checksum over its numbers, their type and their shape.
"""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapter_trainer.errors import DamagedCache
from adapter_trainer.files import fsync_path

Item = dict[str, Tensor]
"""The tensors of one picture or caption, by what they are."""

ABANDONED_SECONDS = 600.0
"""A file that was begun so long ago will not be finished: writing one takes seconds."""
OPEN_FILES = 128
"""Kept open by each process; the system allows 1024."""

_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, TypeError)


class Shards:
    """One folder of encodings that one encoder made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where: dict[str, str] = {}
        """Name of the file that holds a key."""
        self._known: set[str] = set()
        self._opened: dict[str, _File] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: another process opens its own."""
        return {**self.__dict__, "_opened": {}}

    def __contains__(self, key: str) -> bool:
        return key in self.where

    def names(self) -> list[str]:
        """Names of the complete files, sorted: the same in every process that shares the folder."""
        return sorted(path.name for path in self.folder.glob("*.safetensors"))

    def refresh(self) -> list[str]:
        """Takes in files that have come since the last look; removes those that cannot be read, and says which."""
        removed = []
        for name in self.names():
            if name in self._known:
                continue
            try:
                file = _File.open(self.folder / name)
            except FileNotFoundError:
                continue  # another process has found it damaged
            except _UNREADABLE as error:
                removed.append(self._remove(name, error))
                continue
            self._known.add(name)
            for key in file.parts:
                self.where.setdefault(key, name)
        return removed

    def verify(self, names: Iterable[str]) -> list[str]:
        """Reads files in full; removes those that are not what was written, and says which."""
        removed = []
        for name in names:
            try:
                file = _File.open(self.folder / name)
                for key in file.parts:
                    file.read(key)
            except FileNotFoundError:
                continue
            except _UNREADABLE as error:
                removed.append(self._remove(name, error))
        return removed

    def read(self, key: str) -> Item:
        """One item.

        Raises:
            DamagedCache: it is not what was written; its file is removed, so that the next start makes it anew.
        """
        name = self.where[key]
        try:
            if name not in self._opened:
                if len(self._opened) >= OPEN_FILES:
                    del self._opened[next(iter(self._opened))]
                self._opened[name] = _File.open(self.folder / name)
            return self._opened[name].read(key)
        except _UNREADABLE as error:
            raise DamagedCache(
                f"{self._remove(name, error)}; run again: the next start encodes its entries again"
            ) from None

    def write(self, items: dict[str, Item]) -> Path:
        """Writes a file of items, on disk before it has its name.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{key}/{part}": tensor.contiguous() for key, item in items.items() for part, tensor in item.items()}
        checksums = {name: checksum(tensor) for name, tensor in tensors.items()}
        digest = hashlib.blake2b("\n".join(sorted(items)).encode(), digest_size=16).hexdigest()
        final = self.folder / f"{digest}.safetensors"
        aside = self.folder / f".{digest}.{os.uname().nodename}-{os.getpid()}.tmp"
        try:
            save_file(tensors, aside, metadata={"checksums": json.dumps(checksums)})
            fsync_path(aside)
            aside.replace(final)
        finally:
            aside.unlink(missing_ok=True)
        fsync_path(self.folder)
        self._known.add(final.name)
        for key in items:
            self.where.setdefault(key, final.name)
        return final

    def clear_remains(self, now: float | None = None) -> None:
        """Deletes what killed processes left half written."""
        limit = (time.time() if now is None else now) - ABANDONED_SECONDS
        for path in self.folder.glob(".*.tmp"):
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process was faster, or it has got its name

    def _remove(self, name: str, error: Exception) -> str:
        (self.folder / name).unlink(missing_ok=True)
        self._known.discard(name)
        self._opened.pop(name, None)
        self.where = {key: file for key, file in self.where.items() if file != name}
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return f"{self.folder / name} was damaged ({reason}) and has been removed"


@dataclass(frozen=True)
class _File:
    """A file that is open for reading; its contents are mapped, not read."""

    handle: Any
    checksums: dict[str, int]
    parts: dict[str, list[str]]
    """Names of the tensors of each item."""

    @classmethod
    def open(cls, path: Path) -> "_File":
        handle: Any = safe_open(path, framework="pt")
        checksums = json.loads((handle.metadata() or {})["checksums"])
        parts: dict[str, list[str]] = {}
        if sorted(checksums) != sorted(handle.keys()):
            raise ValueError("its checksums are not those of its tensors")
        for name in checksums:
            parts.setdefault(name.rpartition("/")[0], []).append(name)
        return cls(handle, checksums, parts)

    def read(self, key: str) -> Item:
        item = {}
        for name in self.parts[key]:
            tensor: Tensor = self.handle.get_tensor(name)
            if checksum(tensor) != self.checksums[name]:
                raise ValueError(f"{name} is not what was written")
            item[name.rpartition("/")[2]] = tensor
        return item


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a contiguous CPU tensor's type, shape and bytes."""
    head = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    return zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, zlib.crc32(head))
