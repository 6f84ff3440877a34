"""Digests of the rows, pictures and embeddings that a run trains on, by which another start knows them again."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adapter_api.columns import columns_of
from adapter_api.training import TrainingConfig
from adapter_trainer.data import picture_folder
from adapter_trainer.data.contents import Content
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.data.samples import Layout
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidData
from adapter_trainer.publishing.card import DataRecord

THREADS = 8
_PARTS = {
    "rows": "rows or captions, or sizes of files",
    "pictures": "pictures",
    "embeddings": "embeddings",
    "sizes": "sizes that pictures are cut to",
}


def record_of(
    config: TrainingConfig, rows: list[Row], contents: Mapping[Path, Content], layout: Layout, processes: Processes
) -> DataRecord:
    """Which data these are; collective, each process reads its share of the files.

    What files hold is read unless data.params.verify says otherwise: pictures where it asks for them to be decoded,
    embeddings where it asks for anything.

    Raises:
        InvalidData: A file cannot be read.
    """
    params = config.data.params
    root = Path(params.data_root_path)
    table = root / params.pairs_file_path
    pairs = ((row.image, " ".join(row.captions)) for row in rows)
    content = table.read_bytes() if table.is_file() else picture_folder.text_of(pairs, root.resolve()).encode()
    kinds = {column.name: column.kind for column in columns_of(config)}
    embeddings = _files(rows, [name for name, kind in kinds.items() if kind == "embedding"])
    pictures = dict.fromkeys(row.image for row in rows)
    pictures |= _files(rows, [name for name, kind in kinds.items() if kind == "reference"])
    known = {path: content.digest for path, content in contents.items()}
    if not known and params.verify == "decode":
        known = _digests(pictures, processes)
    read = _digests(embeddings, processes) if params.verify != "none" else {}
    return DataRecord(
        table=table.name,
        sha256=hashlib.sha256(content).hexdigest(),
        samples=len(rows),
        pictures=_together(known.values()),
        rows=_rows(rows, root.resolve(), processes),
        embeddings=_together(read.values()),
        sizes=None if params.aspect_buckets is None else _together(f"{size}" for size in layout.sizes),
    )


def changes(before: Mapping[str, Any], now: DataRecord) -> list[str]:
    """PURE: what a checkpoint's record of its data (empty, if it has none) and this one's differ in, for people."""
    found = []
    if "samples" in before and before["samples"] != now.samples:
        found.append(f"{before['samples']} samples then, {now.samples} now")
    for name, what in _PARTS.items():
        ours, theirs = getattr(now, name), before.get(name)
        if ours is not None and theirs is not None and ours != theirs:
            found.append(f"other {what}")
    return found


def kept_of(data: DataRecord) -> dict[str, Any]:
    """PURE: what a checkpoint keeps of it, to be compared."""
    return {"samples": data.samples, **{name: getattr(data, name) for name in _PARTS}}


def _files(rows: list[Row], columns: list[str]) -> dict[Path, None]:
    return dict.fromkeys(value for row in rows for name in columns if isinstance(value := row.values[name], Path))


def _together(digests: Iterable[str]) -> str | None:
    found = sorted(digests)
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else None


def _digests(files: Iterable[Path], processes: Processes) -> dict[Path, str]:
    share = list(files)[processes.rank :: processes.world_size]
    error: InvalidData | None = None
    mine: dict[str, str] = {}
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            mine = dict(zip(map(str, share), pool.map(_digest, share), strict=True))
    except OSError as failed:
        error = InvalidData(f"{failed.filename}: cannot be read: {failed.strerror}; replace or remove it")
    if (first := processes.first_error(error)) is not None:
        raise first
    return {Path(path): digest for part in processes.gather(mine) for path, digest in part.items()}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _rows(rows: list[Row], root: Path, processes: Processes) -> str:
    """Of what stands in each row, in its place, and of how large the files are that it names."""
    total = 0
    for index in range(processes.rank, len(rows), processes.world_size):
        row = rows[index]
        values = {name: _told(value, root) for name, value in sorted(row.values.items())}
        text = repr((index, _told(row.image, root), row.captions, values))
        total += int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest(), "big")
    return f"{sum(processes.gather(total)) % 2**128:032x}"


def _told(value: Any, root: Path) -> Any:
    if not isinstance(value, Path):
        return value
    try:
        size = value.stat().st_size
    except OSError:
        size = -1
    return Path(os.path.relpath(value, root)).as_posix(), size
