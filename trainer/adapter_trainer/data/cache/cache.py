"""Decides whether a run keeps encodings, predicts their room, checks what is there, and builds the rest."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from adapter_api.buckets import bucket_sizes, nearest_bucket
from adapter_api.data import DataParams
from adapter_api.layout import CACHE_FOLDER
from adapter_api.training import TrainingConfig
from adapter_trainer.data.cache.encode import Build, bytes_needed, free_bytes, missing_of
from adapter_trainer.data.cache.encodings import Encoding, Encodings, Plan
from adapter_trainer.data.contents import Content
from adapter_trainer.data.images import Size
from adapter_trainer.data.order import Bucketed, Order
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.data.samples import Layout
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import StopRequest
from adapter_trainer.errors import DiskFull, InvalidData, TrainingError
from adapter_trainer.model.adapter_model import AdapterModel


def layout_of(config: TrainingConfig, rows: list[Row], contents: dict[Path, Content]) -> Layout:
    """Height and width of every sample, and the order that they are read in; `contents` may be empty for squares."""
    params, seed = config.data.params, config.seed
    if params.aspect_buckets is None:
        return Layout.of_squares(len(rows), params.resolution, seed)
    return bucketed(params, [contents[row.image].size for row in rows], seed, config.optimization.train_batch_size)


def bucketed(params: DataParams, originals: list[Size], seed: int, batch_size: int) -> Layout:
    """PURE: pictures of these heights and widths, each in the bucket that is the most like it."""
    choice = bucket_sizes(params)
    buckets = [nearest_bucket(size, choice) for size in originals]
    order: Order = Bucketed(seed, np.array(buckets, np.int64), batch_size)
    return Layout(order, [choice[bucket] for bucket in buckets])


def note_on_repeats(layout: Layout) -> list[str]:
    """PURE: that some pictures are read more often than others, with numbers."""
    order = layout.order
    if not isinstance(order, Bucketed) or not order.repeated:
        return []
    return [
        (
            f"data.params.aspect_buckets: an epoch has {order.length} readings of {len(order.buckets)} pictures, since every batch "
            f"of {order.run} is of one size: {order.repeated} are repeats, {order.repeated / order.length:.1%} of the work. The "
            "readings of a picture count once together; a smaller batch or a larger step has fewer repeats"
        )
    ]


def wants_contents(config: TrainingConfig) -> bool:
    """Whether the digests and sizes of pictures matter to a run."""
    params, model = config.data.params, config.model.params
    encodes = (
        model.first_stage_config.target != "Pixels"
        or model.text_config.encoders
        or model.image_encoder_config is not None
    )
    return params.aspect_buckets is not None or (params.cache.mode != "off" and bool(encodes))


class Cache:
    """The encodings of one run, before its first step."""

    def __init__(
        self,
        config: TrainingConfig,
        model: AdapterModel,
        accelerator: Accelerator,
        processes: Processes,
        output: Path,
        show: Callable[[str], None],
    ) -> None:
        self.config = config
        self.settings = config.data.params.cache
        self.model = model
        self.accelerator = accelerator
        self.processes = processes
        self.folder = Path(self.settings.folder) if self.settings.folder is not None else output / CACHE_FOLDER
        self.show = show

    def encodings(
        self,
        rows: list[Row],
        contents: dict[Path, Content],
        layout: Layout,
        readings: int,
        stop: StopRequest,
        on_encoded: Callable[[int], None],
    ) -> Encodings | None:
        """Everything that can be kept, all of it there; None where encoders run in every step. Collective.

        Args:
            rows: the samples.
            contents: of every picture that they point at.
            layout: heights and widths of samples.
            readings: of samples, in the whole run.
            stop: notices signals.
            on_encoded: is called with the number of encodings that are there.

        Raises:
            TrainingError: no room, a folder that cannot be written, a picture that cannot be read, or a request to stop.
        """
        if self.settings.mode == "off" or not contents:
            return None
        if self.settings.mode == "auto" and readings <= layout.order.length:
            return None  # every sample is read once: there is nothing to gain
        plan = Plan(
            self.config,
            self.model,
            rows,
            contents,
            layout.sizes,
            self.folder,
            self._device(),
            self.accelerator.autocast,
        )
        found = plan.encodings()
        if not found.kinds:
            return None
        self._check(found.kinds)
        if not self._has_room(found.kinds):
            return None
        Build(self.processes, stop, self.settings.batch_size, self.show, on_encoded).run(found.kinds)
        return found

    def _device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def _check(self, kinds: list[Encoding]) -> None:
        """Removes what is damaged. Processes of one node share its folder, so each reads a part."""
        local, count = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        reads_all = self.config.data.params.verify == "decode"
        for kind in kinds:
            kind.shards.clear_remains()
            removed = kind.shards.verify(kind.shards.names()[local::count]) if reads_all else []
            removed += kind.shards.refresh()
            for message in [line for lines in self.processes.gather(removed) for line in lines]:
                self.show(f"{message}; its entries are encoded again")
            kind.shards.refresh()

    def _has_room(self, kinds: list[Encoding]) -> bool:
        error: TrainingError | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            needed, free = sum(bytes_needed(kind) for kind in kinds), free_bytes(self.folder)
            if needed > free:
                missing = sum(missing_of(kind) for kind in kinds)
                error = DiskFull(
                    f"data.params.cache.folder: {self.folder} has {_amount(free)} free, the cache needs {_amount(needed)} "
                    f"for {missing} encodings; free some, name another folder, or set data.params.cache.precision to half "
                    "or mode to off"
                )
        except InvalidData as failed:
            error = failed
        except OSError as failed:
            error = TrainingError(f"data.params.cache.folder: {self.folder} cannot be written: {failed.strerror}")
        first = self.processes.first_error(error)
        if first is None:
            return True
        if isinstance(first, DiskFull) and self.settings.mode == "auto":
            self.show(f"encoders run in every step: {first}")
            return False
        raise first


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
