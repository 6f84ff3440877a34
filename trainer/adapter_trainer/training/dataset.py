"""The second stage of a run: its samples are read and checked, and laid out in sizes and in order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from adapter_api.columns import columns_of
from adapter_api.training import TrainingConfig
from adapter_trainer.data.cache.cache import layout_of, note_on_repeats, wants_contents
from adapter_trainer.data.contents import Content, contents_of
from adapter_trainer.data.data_account import account
from adapter_trainer.data.pairs_table import Row, Table, read_samples
from adapter_trainer.data.samples import Layout
from adapter_trainer.data.verify import check_rows, resolve_widths
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidData
from adapter_trainer.sampling.evaluation import read_held_out
from adapter_trainer.sampling.rows_to_draw import check_rows_to_draw
from adapter_trainer.training.join import Joined

Found = TypeVar("Found")


@dataclass(frozen=True)
class Dataset:
    """The data that a run trains on."""

    config: TrainingConfig
    """The configuration, with the widths of columns known."""
    rows: list[Row]
    held_out: list[Row]
    """Samples of the evaluation; empty without one."""
    contents: dict[Path, Content]
    """Facts about every picture; empty if nothing depends on them."""
    layout: Layout

    @property
    def length(self) -> int:
        """Number of samples that one epoch reads."""
        return self.layout.order.length


def read_dataset(config: TrainingConfig, joined: Joined) -> Dataset:
    """Reads and checks all samples; collective.

    Raises:
        InvalidData: names file, line and what is wrong.
    """
    processes = joined.processes
    rows, config = _rows(config, joined)
    held_out = _held_out(config, joined)
    agreed(processes, lambda: check_rows_to_draw(config))
    contents = _contents(config, rows, processes)
    layout = layout_of(config, rows, contents)
    for line in note_on_repeats(layout):
        joined.show(line)
    return Dataset(config, rows, held_out, contents, layout)


def agreed(processes: Processes, read: Callable[[], Found]) -> Found:
    """What `read` gives on this rank, once it has succeeded on all of them; collective.

    Raises:
        InvalidData: the first rank's that has one, on every rank.
    """
    error: Exception | None = None
    found: list[Found] = []
    try:
        found.append(read())
    except InvalidData as failed:
        error = failed
    if (error := processes.first_error(error)) is not None:
        raise error
    return found[0]


def _rows(config: TrainingConfig, joined: Joined) -> tuple[list[Row], TrainingConfig]:
    """Reads the samples, after every rank has checked its share of the files. Returns them and the configuration with widths."""
    params, processes = config.data.params, joined.processes
    path = Path(params.data_root_path) / params.pairs_file_path

    def read() -> tuple[Table, TrainingConfig, set[Path]]:
        table = read_samples(params, columns_of(config))
        known = resolve_widths(config, table.rows, path)
        mine = table.rows[processes.rank :: processes.world_size]
        return table, known, check_rows(mine, columns_of(known), params.verify, path)

    table, config, animated = agreed(processes, read)
    for line in account(params, table, set().union(*processes.gather(animated))):
        joined.show(line)
    return table.rows, config


def _held_out(config: TrainingConfig, joined: Joined) -> list[Row]:
    """Reads the samples of the evaluation; every rank checks all of them, because they are few."""
    evaluation = config.evaluation
    if evaluation is None:
        return []
    table = agreed(joined.processes, lambda: read_held_out(evaluation, config))
    params = config.data.params.model_copy(update={"pairs_file_path": evaluation.pairs_file_path})
    for line in account(params, table, set()):
        joined.show(line)
    return table.rows


def _contents(config: TrainingConfig, rows: list[Row], processes: Processes) -> dict[Path, Content]:
    if not wants_contents(config):
        return {}
    references = [column.name for column in columns_of(config) if column.kind == "reference"]
    return contents_of(rows, references, processes)
