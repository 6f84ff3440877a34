"""What pictures are, apart from what they show: the digest of each file and its height and width."""

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adapter_trainer.data.images import Size
from adapter_trainer.data.opening import read_header
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidData

THREADS = 8


@dataclass(frozen=True)
class Content:
    """One picture."""

    digest: str
    """BLAKE2b of the file's bytes, 32 hexadecimal digits: the same picture under another name is the same content."""
    size: Size
    """Of the picture as viewers show it, upright."""


def contents_of(rows: list[Row], references: Iterable[str], processes: Processes) -> dict[Path, Content]:
    """Every picture that rows point at; collective, each process reads its share of the files.

    Args:
        rows: the samples.
        references: names of the columns that hold reference images.
        processes: those of the run.

    Raises:
        InvalidData: a file cannot be read as a picture; names it.
    """
    columns = tuple(references)
    paths = dict.fromkeys(row.image for row in rows)
    for row in rows:
        paths |= dict.fromkeys(value for name in columns if isinstance(value := row.values[name], Path))
    share = list(paths)[processes.rank :: processes.world_size]
    error: InvalidData | None = None
    found: dict[Path, Content] = {}
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(zip(share, pool.map(_content, share), strict=True))
    except InvalidData as failed:
        error = failed
    if (first := processes.first_error(error)) is not None:
        raise first
    named = {row: content for part in processes.gather(_by_name(found)) for row, content in part.items()}
    return {path: named[str(path)] for path in paths}


def _by_name(found: dict[Path, Content]) -> dict[str, Content]:
    return {str(path): content for path, content in found.items()}


def _content(path: Path) -> Content:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{path} cannot be opened: {error.strerror}; replace or remove it") from None
    size = read_header(str(path), io.BytesIO(data)).size
    return Content(hashlib.blake2b(data, digest_size=16).hexdigest(), size)
